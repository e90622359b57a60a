"""A run: follow a recipe's timeline from raw text to published models, resuming where the last run stopped.

Each entry's inputs are the hash of everything before it, so an entry is done again exactly when something it depends on
has changed: the recipe, the text, the tokenizer or the machine. Only training is never thrown away unasked.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from lilliput.base.environment import environment
from lilliput.base.errors import LilliputError, RecipeError, RunError, reading
from lilliput.base.files import write_bytes
from lilliput.base.implemented import check_implemented
from lilliput.base.own_code import Code, code_of, using
from lilliput.base.run_code import FILE as CODE_FILE
from lilliput.base.run_code import write_code
from lilliput.base.run_folder import RunFolder, differences
from lilliput.base.spec import to_plain
from lilliput.base.terminal import Terminal
from lilliput.evals.question_files import Hub, QuestionSource
from lilliput.publish.lineage import phase_seed
from lilliput.recipe import Recipe
from lilliput.run.command_record import FILE as COMMAND_FILE
from lilliput.run.command_record import Command, write_command
from lilliput.run.prepare import Preparation
from lilliput.run.reproducibility import check_code_unchanged, resolve_machine, untrained
from lilliput.run.runner import OtherRank, Runner, prepare
from lilliput.run.steps import entry_code
from lilliput.train.all_reduce import RANK, AllReduce
from lilliput.train.loggers.logger import check_loggers
from lilliput.train.machine import Machine


def run(
    recipe: Recipe,
    folder: Path,
    machine: Machine | None,
    console: Console,
    questions: QuestionSource = Hub(),
    command: Command | None = None,
    *,
    sinks: Sequence[str] = (),
    allow_change: bool = False,
) -> list[Path]:
    """Do everything the recipe's timeline says.

    Args:
        recipe: what to do.
        folder: the run folder; one that exists is continued.
        machine: where; None for the machine the run began on, else whatever is here.
        console: where progress is shown.
        questions: where the questions of evaluation suites come from.
        command: what the recipe comes from, for the cards; None where it was made in Python.
        sinks: names of other programs that are shown the numbers of training.
        allow_change: whether training may go on on another machine, or with other versions, than it began with.

    Returns:
        the folders of the releases, in order.

    Raises:
        LilliputError: a sink is not there.
        RecipeError: the recipe needs a part that is not built.
        RunError: a phase in the folder was trained from something else, or resuming here would change the weights.
    """
    check_implemented(recipe)
    check_loggers(sinks)
    with _runner(recipe, folder, machine, console, command, sinks, allow_change) as runner:
        publisher = runner.publisher(questions)
        return list(runner.run_timeline(publisher))


def tokenizer(recipe: Recipe, folder: Path, console: Console, command: Command | None = None) -> None:
    """Learn the recipe's tokenizer."""
    with _open_run(recipe, folder, command) as run_folder:
        Preparation(run_folder, recipe, console).tokenizer()


def data(
    recipe: Recipe, folder: Path, console: Console, command: Command | None = None, *, until: str | None = None
) -> None:
    """Learn the tokenizer and write the token files of every corpus that the timeline reads, or phases until one."""
    with _open_run(recipe, folder, command) as run_folder:
        prepare(Preparation(run_folder, recipe, console), recipe, until)


def verify(recipe: Recipe, folder: Path, console: Console, command: Command | None = None) -> None:
    """The same, and hash every token file again, changed since the last time or not.

    Raises:
        DataError: one differs from its index.
    """
    with _open_run(recipe, folder, command) as run_folder:
        preparation = Preparation(run_folder, recipe, console)
        preparation.forget()
        preparation.everything()


def train(
    recipe: Recipe,
    folder: Path,
    machine: Machine | None,
    console: Console,
    command: Command | None = None,
    *,
    until: str | None = None,
    sinks: Sequence[str] = (),
    allow_change: bool = False,
) -> None:
    """Do everything up to the weights of the last phase, and release nothing.

    Args:
        recipe: what to do; the run stays one of the whole recipe, and can go on to its end.
        folder: the run folder; one that exists is continued.
        machine: see `run`.
        console: where progress is shown.
        command: see `run`.
        until: the last phase to train; None for all.
        sinks, allow_change: see `run`.
    """
    check_implemented(recipe.until(until) if until else recipe)
    check_loggers(sinks)
    with _runner(recipe, folder, machine, console, command, sinks, allow_change) as runner:
        runner.run_timeline(None, until)


def publish(
    recipe: Recipe, folder: Path, console: Console, questions: QuestionSource = Hub(), command: Command | None = None
) -> list[Path]:
    """Export, check, evaluate and describe the releases of a trained run; never trains.

    Raises:
        RecipeError: the recipe makes no release.
        RunError: a phase is not trained, or was trained from something else.
    """
    check_implemented(recipe)
    if not recipe.releases:
        raise RecipeError(
            f"nothing is published: the recipe {recipe.name!r} makes no release of what it trains",
            where=str(folder),
            hint=f"lilliput generate {folder} asks what is trained; to publish it, put a Release(...) at the end of "
            "the recipe's timeline",
        )
    if not (folder / "run.json").is_file():
        raise untrained("this run", folder)
    with _open_run(recipe, folder, command) as run_folder:
        if (run_folder.read("run.json") or {}).get("machine") is None:
            raise untrained("this run", folder)
        resolved = resolve_machine(run_folder, None)
        resolved.apply()
        runner = Runner(run_folder, recipe, resolved, console)
        return list(runner.run_timeline(runner.publisher(questions), train=False))


@contextmanager
def _runner(
    recipe: Recipe,
    folder: Path,
    machine: Machine | None,
    console: Console,
    command: Command | None,
    sinks: Sequence[str],
    allow_change: bool,
) -> Iterator[Runner]:
    """The runner of this process: that of the first rank, which holds the run, or that of another one."""
    if os.environ.get(RANK, "0") != "0":
        run = RunFolder(folder)  # read, never written
        resolved = machine.resolved() if machine else resolve_machine(run, None)
        if isinstance(resolved.exchange, AllReduce):
            resolved.apply()
            with resolved.exchange.join(resolved.device) as ranks, using(*code_of((recipe, resolved))):
                yield OtherRank(run, recipe, resolved, Terminal(quiet=True), ranks)
            return
    with _open_run(recipe, folder, command, allow_change=allow_change) as run_folder, using(*code_of(machine)):
        named = command and command.machine
        resolved = resolve_machine(run_folder, machine, named=named, allow_change=allow_change)
        resolved.apply()
        with resolved.exchange.join(resolved.device) as ranks:
            yield Runner(run_folder, recipe, resolved, console, ranks, sinks=sinks, allow_change=allow_change)


@contextmanager
def _open_run(
    recipe: Recipe, folder: Path, command: Command | None, *, allow_change: bool = False
) -> Iterator[RunFolder]:
    code = _code(recipe, command)
    with RunFolder(folder) as run_folder, using(*code_of(recipe)):
        _refuse_change(run_folder, recipe, allow_change)
        files = (folder / "recipe.json", folder / COMMAND_FILE, folder / CODE_FILE)
        before = {file: file.read_bytes() for file in files if file.exists()}
        begun_parts = _begun_parts(run_folder, recipe)
        if code is not None:
            write_code(run_folder, code)
        run_folder.write("recipe.json", to_plain(recipe))
        if command is not None:
            write_command(run_folder, command, recipe)
        run_folder.write("environment.json", environment())
        try:
            yield run_folder
        except (LilliputError, KeyboardInterrupt):  # the run stays what it was made from
            if _begun_parts(run_folder, recipe) == begun_parts:
                for file, content in before.items():
                    write_bytes(file, content)
            raise


def _begun_parts(run_folder: RunFolder, recipe: Recipe) -> list[str]:
    """The parts of a recipe's timeline that the run has begun and never replaces unasked."""
    parts = [entry.part(index) for index, entry in enumerate(recipe.timeline)]
    return [part for part in parts if part is not None and run_folder.record(part).get("from")]


def _code(recipe: Recipe, command: Command | None) -> Code | None:
    """The Python files of a recipe; None where it was made of Lilliput's parts alone, in Python or by name.

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


def _refuse_change(run_folder: RunFolder, recipe: Recipe, allow_change: bool) -> None:
    """Refuse a recipe that would have trained a phase otherwise, before anything the phase rests on is replaced."""
    with reading(run_folder.path / "parts", "put the records of the run back from a copy", "a record is damaged"):
        _refuse_other_phases(run_folder, recipe, allow_change)
        _refuse_shorter(run_folder, recipe)


def _refuse_shorter(run_folder: RunFolder, recipe: Recipe) -> None:
    """Refuse a recipe without a phase that training was resumed with: releases would be made of what came before."""
    try:
        before = (run_folder.read("recipe.json") or {}).get("timeline", [])
        entries = [entry if isinstance(entry, dict) else {} for entry in before]
    except (RunError, AttributeError, TypeError):  # damaged, and written anew
        return
    names = {phase.name for phase in recipe.phases.values()}
    for index, entry in enumerate(entries):
        name = entry.get("name")
        part = f"phases/{index:02d}-{name}"
        if entry.get("resumes") and name not in names and run_folder.record(part).get("from"):
            raise RunError(
                f"the run was trained longer, and this recipe does not have its phase {name!r}",
                where=str(run_folder.path),
                hint=f"go on with the run's own recipe: lilliput run {run_folder.path}; begin another run with --out; "
                f"or give the phase up: lilliput clean {run_folder.path} --from {part}",
            )


def _refuse_other_phases(run_folder: RunFolder, recipe: Recipe, allow_change: bool) -> None:
    begun_phases = []
    for index, entry in enumerate(recipe.timeline):
        part = entry.part(index)
        if part is None or not run_folder.record(part).get("from"):
            continue
        begun_phases += [part] if index in recipe.phases else []
        run_folder.refuse_change(part, {entry.kind: to_plain(entry), "seed": phase_seed(recipe.seed, index)})
        check_code_unchanged(run_folder, part, entry_code(recipe, index), allow_change=allow_change)
    tokenizer = run_folder.record("tokenizer").get("from")
    if begun_phases and tokenizer:
        changed = differences(
            {key: tokenizer[key] for key in ("tokenizer", "split")},
            {"tokenizer": recipe.tokenizer.identity(), "split": to_plain(recipe.split)},
        )
        if changed:
            raise RunError(
                f"{begun_phases[0]} was trained on other tokens: {'; '.join(changed[:4])}",
                where=str(run_folder.path),
                hint=f"to continue, give the --set and other options that it was made with again, or name the run "
                f"folder alone, as in lilliput run {run_folder.path}; or begin another run with --out; or give it up: "
                f"lilliput clean {run_folder.path} --from {begun_phases[0]}",
            )
