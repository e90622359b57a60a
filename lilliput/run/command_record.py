"""The command that a run comes from, a recipe's name and the options that change it: a card says it again."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from lilliput.base.errors import LilliputError, reading
from lilliput.base.field_overrides import override_all
from lilliput.base.files import hash_of
from lilliput.base.own_code import Loaded, using
from lilliput.base.run_folder import RunFolder, no_run
from lilliput.base.spec import from_plain, to_plain
from lilliput.more_tokens import with_more_tokens
from lilliput.overrides import replace_sources
from lilliput.recipe import Recipe, names, recipe_and_code
from lilliput.shrink import shrink

FILE = "command.json"
"""File of a run folder with the command and the hash of its recipe."""


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """Options that change a recipe, as they were typed."""

    shrink: bool = False
    overrides: tuple[str, ...] = ()
    """Values of --set."""
    sources: tuple[str, ...] = ()
    """Values of --source."""
    more_tokens: tuple[str, ...] = ()
    """Values of --more-tokens."""

    def apply(self, recipe: Recipe) -> Recipe:
        """Apply --shrink, --source, --set and --more-tokens to a recipe, in this order, so that none undoes another."""
        before, recipe = recipe, shrink(recipe) if self.shrink else recipe
        if self.shrink and self.sources:  # a rehearsal holds out much of the little that it reads by itself
            recipe = replace(recipe, split=before.split)
        given: dict[str, list[str]] = {}
        for one in self.sources:
            corpus, path = _pair(one, "--source", f"{next(iter(recipe.corpora))}={one.strip('=') or 'texts'}")
            given.setdefault(corpus, []).append(path)
        recipe = replace_sources(recipe, {corpus: tuple(paths) for corpus, paths in given.items()}, before.corpora)
        recipe = override_all(recipe, [_pair(one, "--set", "seed=1") for one in self.overrides])
        return with_more_tokens(recipe, self.more_tokens)


@dataclass(frozen=True, kw_only=True)
class Command(RecipeOptions):
    """`lilliput run RECIPE` and its options."""

    recipe: str
    """By name, or a Python file."""
    machine: str | None = None
    """By name, or a Python file."""

    def make(self) -> Recipe:
        """The recipe that it stands for.

        Raises:
            LilliputError: an option has no value.
            RecipeError: a name, a field or a value does not exist.
            DataError: a source is no file.
        """
        if Path(self.recipe).is_dir() or (os.sep in self.recipe and not self.recipe.endswith(".py")):
            raise no_run(Path(self.recipe))
        return self._made(self)

    def unchanged(self) -> Recipe | None:
        """The recipe of the package without the options; None where it is a file of one's own."""
        return self._unchanged if self.recipe in names("lilliput.recipes") else None

    def _made(self, read: "Command") -> Recipe:
        """The recipe, from what another command has read of the same name."""
        with using(read.code):
            return self.apply(read._unchanged)

    def extended_with(self, later: RecipeOptions, recipe: Recipe) -> "Command | None":
        """This command with later options too, which say the last word; None unless it then stands for `recipe`.

        The command may be one that a run folder notes: a Python file that it names is not run again to find out.
        """
        longer = replace(
            self,
            shrink=self.shrink or later.shrink,
            overrides=_latest(self.overrides, later.overrides),
            sources=_latest(self.sources, later.sources),
            more_tokens=(*self.more_tokens, *later.more_tokens),
        )
        if self.recipe not in names("lilliput.recipes") and "_read" not in self.__dict__:
            adds_up = longer.shrink == self.shrink and (not self.more_tokens or _is_apart(later.overrides, recipe))
            return longer if adds_up else None  # options add up, unless they come before others
        try:
            made = longer._made(self)
        except LilliputError:  # the recipe's file, or a source, is not where it was
            return None
        return longer if to_plain(made) == to_plain(recipe) else None

    @property
    def code(self) -> Loaded | None:
        """The Python files that the recipe was read from; None where it has none, or was not read in this process."""
        return self._read[1] if "_read" in self.__dict__ else None

    @property
    def _unchanged(self) -> Recipe:
        return self._read[0]

    @cached_property
    def _read(self) -> tuple[Recipe, Loaded | None]:
        """Read once: a file's own specs would be of other types the second time."""
        return recipe_and_code(self.recipe)


def write_command(run: RunFolder, command: Command, recipe: Recipe) -> None:
    """Note in an open run which command its recipe comes from; the machine is noted with its settings, `run.json`."""
    run.write(FILE, {"recipe": hash_of(to_plain(recipe)), "command": to_plain(replace(command, machine=None))})


def read_command(run: RunFolder, recipe: Recipe) -> Command | None:
    """The command that a run's recipe comes from; None where none is known, as of a run that was begun in Python.

    Its machine is the one that was named when training began: commands after that go on where it did.
    """
    with reading(run.path / FILE, run.hint(FILE), "the file is damaged"):
        noted = run.read(FILE)
        if noted is None or noted["recipe"] != hash_of(to_plain(recipe)):
            return None
        command, machine = from_plain(noted["command"], where=FILE), (run.read("run.json") or {}).get("machine_name")
        if not isinstance(command, Command) or not isinstance(machine, str | None):
            raise TypeError("it notes no command")
        return replace(command, machine=machine)


def _is_apart(overrides: Sequence[str], recipe: Recipe) -> bool:
    """Return whether --set means the same before --more-tokens: it names neither a place nor a phase that this
    concerns.
    """
    phases = [phase for phase in recipe.phases.values() if phase.resumes is not None]
    touched = {name for phase in phases for name in (phase.name, phase.resumes)}
    paths = [text.partition("=")[0].split(".") for text in overrides]
    return not any(
        path[0] == "timeline" and (path[1:] == [] or path[1].isdecimal() or path[1] in touched) for path in paths
    )


def _latest(before: Sequence[str], after: Sequence[str]) -> tuple[str, ...]:
    """`name=value` texts without the earlier ones whose names come again."""
    again = {text.partition("=")[0] for text in after}
    return (*(text for text in before if text.partition("=")[0] not in again), *after)


def _pair(text: str, option: str, example: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise LilliputError(f"{text!r} has no value", where=option, hint=f"write e.g. {option} {example}")
    return name, value
