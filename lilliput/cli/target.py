"""What a pipeline command works on: a recipe and the folder of its run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lilliput.base.errors import LilliputError


@dataclass(frozen=True, kw_only=True)
class Target:
    """A recipe, changed as the command line says, and its run folder."""

    recipe: Any
    folder: Path
    command: Any
    """`lilliput.command.Command` that makes the recipe; None where no single one is known."""


def target(
    name: str,
    *,
    out: Path | None = None,
    overrides: Sequence[str] = (),
    sources: Sequence[str] = (),
    shrunk: bool = False,
    machine: str | None = None,
) -> Target:
    """What RECIPE|RUN and the options after it stand for.

    A run knows its recipe; options change it, which a run that has trained already will refuse by itself.

    Raises:
        LilliputError: a run folder came with --out, or an option has no value.
        RecipeError: a name, a field or a value does not exist.
    """
    from lilliput.command import Command

    run = Path(name)
    if (run / "recipe.json").is_file():
        if out is not None:
            raise LilliputError(
                f"{name} is a run and has its folder already",
                where="--out",
                hint="give the recipe by name to begin a run in another folder",
            )
        return _continued(run, overrides, sources, shrunk, machine)
    command = Command(recipe=name, shrink=shrunk, overrides=tuple(overrides), sources=tuple(sources), machine=machine)
    recipe = command.make()
    folder = out or Path("runs") / (f"{recipe.name}-shrunk" if shrunk else recipe.name)
    return Target(recipe=recipe, folder=folder, command=command)


def _continued(
    run: Path, overrides: Sequence[str], sources: Sequence[str], shrunk: bool, machine: str | None
) -> Target:
    """A run with later options."""
    from dataclasses import replace

    from lilliput.base.rundir import RunFolder
    from lilliput.command import changed, read_command
    from lilliput.recipe import read_recipe

    before = read_recipe(run)
    recipe = changed(before, shrunk, overrides, sources)
    command = read_command(RunFolder(run), before)
    if command is not None and recipe != before:
        command = command.then(recipe, shrunk=shrunk, overrides=overrides, sources=sources)
    return Target(recipe=recipe, folder=run, command=command and replace(command, machine=machine))
