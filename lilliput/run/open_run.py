"""Opening the run of a recipe, for one process: its folder, its machine, its ranks."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from lilliput.base.environment import environment
from lilliput.base.errors import LilliputError, RecipeError
from lilliput.base.files import write_bytes
from lilliput.base.own_code import Code, code_of, using
from lilliput.base.run_code import FILE as CODE_FILE
from lilliput.base.run_code import write_code
from lilliput.base.run_folder import RUN_FILE, RunFolder
from lilliput.base.spec import to_plain
from lilliput.base.terminal import Terminal
from lilliput.recipe import Recipe
from lilliput.run.asking import Asking
from lilliput.run.command_record import FILE as COMMAND_FILE
from lilliput.run.command_record import Command, write_command
from lilliput.run.context import RunContext
from lilliput.run.reproducibility import resolve_machine
from lilliput.run.same_recipe import begun_parts, refuse_other_recipe
from lilliput.train.all_reduce import RANK, AllReduce
from lilliput.train.machine import Machine


@contextmanager
def open_context(
    recipe: Recipe,
    folder: Path,
    machine: Machine | None,
    console: Console,
    command: Command | None,
    loggers: Sequence[str],
    allow_change: bool,
    asking: Asking = Asking(),
) -> Iterator[RunContext]:
    """Return the context of this process: the first rank opens the run, another one only reads it.

    Args:
        recipe: to be run.
        folder: of the run; an existing one is continued.
        machine: to run on; None for the machine that the run began on, else for this one.
        console: where progress is shown.
        command: that the recipe comes from; None for a recipe made in Python.
        loggers: names of other programs that are shown the numbers of training.
        allow_change: whether training may resume on another machine, or with other versions.
        asking: means to ask teachers.

    Raises:
        RunError: a phase was trained from something else, or another machine than before, which is not allowed.
        MachineError: the machine's ranks are not here.
    """
    if os.environ.get(RANK, "0") != "0" and (machine or (folder / RUN_FILE).is_file()):
        run = RunFolder(folder)
        resolved = machine.resolved() if machine else resolve_machine(run, None)
        if isinstance(resolved.exchange, AllReduce):
            resolved.apply()
            with resolved.exchange.join(resolved.device) as ranks, using(*code_of((recipe, resolved))):
                yield RunContext(run=run, recipe=recipe, machine=resolved, console=Terminal(quiet=True), ranks=ranks)
            return
    with open_run(recipe, folder, command, allow_change=allow_change) as run, using(*code_of(machine)):
        resolved = resolve_machine(run, machine, named=command and command.machine, allow_change=allow_change)
        resolved.apply()
        with resolved.exchange.join(resolved.device) as ranks:
            yield RunContext(
                run=run,
                recipe=recipe,
                machine=resolved,
                console=console,
                ranks=ranks,
                loggers=loggers,
                allow_change=allow_change,
                asking=asking,
            )


@contextmanager
def open_run(
    recipe: Recipe, folder: Path, command: Command | None, *, allow_change: bool = False
) -> Iterator[RunFolder]:
    """Return the folder of a recipe's run, locked, with the recipe and the command in it.

    Args:
        recipe: of the run.
        folder: new, empty, or of a run of this recipe.
        command: that the recipe comes from; None for a recipe made in Python.
        allow_change: whether the code of own parts may differ from when training began.

    Raises:
        RunError: a phase was trained from something else.
        InUseError: another process has the run open.
    """
    code = _code(recipe, command)
    with RunFolder(folder) as run_folder, using(*code_of(recipe)):
        refuse_other_recipe(run_folder, recipe, allow_change)
        files = (folder / "recipe.json", folder / COMMAND_FILE, folder / CODE_FILE)
        before = {file: file.read_bytes() for file in files if file.exists()}
        begun = begun_parts(run_folder, recipe)
        if code is not None:
            write_code(run_folder, code)
        run_folder.write("recipe.json", to_plain(recipe))
        if command is not None:
            write_command(run_folder, command, recipe)
        run_folder.write("environment.json", environment())
        try:
            yield run_folder
        except (LilliputError, KeyboardInterrupt):  # the run stays what it was made from
            if begun_parts(run_folder, recipe) == begun:
                for file, content in before.items():
                    write_bytes(file, content)
            raise


def _code(recipe: Recipe, command: Command | None) -> Code | None:
    """Return the Python files of a recipe; None if it is made of Lilliput's parts alone, in Python or by name.

    Raises:
        RecipeError: its parts come from several recipe files.
    """
    codes = {one.code.digest: one.code for one in code_of(recipe)}
    if len(codes) > 1:
        raise RecipeError(
            f"the parts come from several recipe files: {', '.join(one.main for one in codes.values())}",
            where=f"recipe {recipe.name!r}",
            hint="import one file in the other, by its name: a run keeps a recipe file and what that imports",
        )
    typed = command.code if command else None
    return next(iter(codes.values()), typed and typed.code)
