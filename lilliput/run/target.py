"""Target of a run: a recipe, changed by options, and the folder of its run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lilliput.base.errors import LilliputError
from lilliput.base.run_folder import RunFolder
from lilliput.more_tokens import announced, refuse_unfinished
from lilliput.recipe import Recipe, read_recipe
from lilliput.run.command_record import Command, read_command


@dataclass(frozen=True, kw_only=True)
class Target:
    """A recipe, as its options change it, and its run folder."""

    recipe: Recipe
    folder: Path
    command: Command | None
    """That makes the recipe; None where no single one is known."""
    notes: Sequence[str] = ()
    """Lines to print before anything is done."""


def find_target(command: Command, *, meet: Callable[[Path], object], out: Path | None = None) -> Target:
    """Return what a recipe or a run, and options beside it, stand for.

    A run knows its recipe; options change it, which a run that has trained already will refuse by itself.

    Args:
        command: as it was given, for a recipe or a run folder.
        meet: is given a run folder before its recipe is read: it lets the code run that the run keeps, or does not.
        out: the run folder; `runs/<recipe>` by default.

    Raises:
        LilliputError: a run folder came with another one, or an option has no value.
        RecipeError: a name, a field or a value does not exist, or the run needs its code, which may not run.
        RunError: a run is to be trained for longer that has not finished.
    """
    run = Path(command.recipe)
    if (run / "recipe.json").is_file():
        if out is not None:
            raise LilliputError(
                f"{command.recipe} is a run folder itself",
                where="--out",
                hint="leave --out out, or give the recipe by name to start a run in another folder",
            )
        meet(run)
        return _continued(run, command)
    recipe = command.make()
    folder = out or Path("runs") / (f"{recipe.name}-shrunk" if command.shrink else recipe.name)
    return Target(recipe=recipe, folder=folder, command=command)


def _continued(run: Path, later: Command) -> Target:
    """A run with later options."""
    before = read_recipe(run)
    recipe = later.apply(before)
    notes: Sequence[str] = ()
    if later.more_tokens:
        refuse_unfinished(RunFolder(run), before, recipe)
        notes = announced(before, recipe)
    command = read_command(RunFolder(run), before)
    if command is not None and recipe != before:
        command = command.extended_with(later, recipe)
    return Target(recipe=recipe, folder=run, command=command and replace(command, machine=later.machine), notes=notes)
