"""Target of a run: a recipe, changed by options, and the folder of its run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lilliput.base.errors import LilliputError
from lilliput.base.run_folder import RunFolder
from lilliput.more_tokens import announced, refuse_unfinished
from lilliput.publish.release_formats import check_formats
from lilliput.recipe import Recipe, read_recipe
from lilliput.run.command_record import Command, RecipeOptions, read_command


@dataclass(frozen=True, kw_only=True)
class Target:
    """A recipe, as its options change it, and its run folder."""

    recipe: Recipe
    folder: Path
    command: Command | None
    """That makes the recipe; None where no single one is known."""
    notes: Sequence[str] = ()
    """Lines to print before anything is done."""

    def with_formats(self, formats: str) -> "Target":
        """Return the same with all releases in these formats, names with commas between them.

        Raises:
            RecipeError: there is no such format.
            ExportError: a release cannot have it.
        """
        names = tuple(name.strip() for name in formats.split(","))
        for release in self.recipe.releases.values():
            check_formats(names, release.layout, f"--format {formats}")
        paths = [f"timeline.{release.name}.formats" for release in self.recipe.releases.values()]
        later = RecipeOptions(overrides=tuple(f"{path}={','.join(names)}" for path in paths))
        recipe = later.apply(self.recipe)
        command = self.command and self.command.extended_with(later, recipe)
        return replace(self, recipe=recipe, command=command)


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
