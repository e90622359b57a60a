"""The recipe of a run without the code of its own parts, which was not allowed to run: all that needs none of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from lilliput.base.errors import LilliputError, RecipeError, reading
from lilliput.base.ownership import check_name
from lilliput.base.spec import from_plain, is_lilliputs, types_in
from lilliput.optim.schedule import Constant
from lilliput.recipe import Release, foreign_types, plain_recipe
from lilliput.train.phase import Phase, StepPlan

RECIPE = "lilliput.recipe:Recipe"
PHASE = "lilliput.train.phase:Phase"


@dataclass(frozen=True, kw_only=True)
class HiddenPhase:
    """A phase some parts of which are hidden."""

    kind: ClassVar[str] = Phase.kind

    name: str
    steps: int | None
    """None where that takes a hidden part to know."""

    def describe(self) -> str:
        """Describe the entry as a phase describes itself."""
        return f"{self.name}, {f'{self.steps:,} steps' if self.steps else 'its steps take the code'}"


@dataclass(frozen=True, kw_only=True)
class HiddenEntry:
    """An entry of which nothing is known but that it is there."""

    kind: ClassVar[str] = "hidden"

    def shape(self, spec: Any) -> None:
        """Unknown from here on."""

    def describe(self) -> str:
        """Return what would tell."""
        return "an entry that takes the code"


@dataclass(frozen=True, kw_only=True)
class Outline:
    """Outline of a recipe; None stands for what is hidden."""

    name: str
    about: str
    seed: int
    corpora: Mapping[str, Any]
    model: Any
    """A `ModelSpec` or a `PretrainedModel`."""
    timeline: tuple[Any, ...]
    hidden: tuple[str, ...]
    """Names of the types that take the code."""
    is_longer: bool
    """True if a phase resumes another one."""

    @property
    def phases(self) -> dict[int, Phase | HiddenPhase]:
        """The phases by their index in the timeline."""
        return {index: entry for index, entry in enumerate(self.timeline) if entry.kind == Phase.kind}

    @property
    def releases(self) -> dict[int, Release]:
        """The releases by their index in the timeline."""
        return {index: entry for index, entry in enumerate(self.timeline) if isinstance(entry, Release)}


def read_outline(run: Path) -> Outline:
    """The recipe of a run, as far as no code of its own is needed.

    Raises:
        RunError: its `recipe.json` is missing or damaged.
        RecipeError: it holds no recipe.
    """
    path = run / "recipe.json"
    hint = "put it back from a copy; `lilliput runs` lists other runs"
    with reading(path, hint, "the file is damaged"):
        plain = plain_recipe(run)
        if plain["type"] != RECIPE:
            raise RecipeError("the file holds no recipe", where=str(path), hint=hint)
        check_name("recipe", plain["name"], str(path))
        return Outline(
            name=plain["name"],
            about=str(plain["about"]),
            seed=int(plain["seed"]),
            corpora={name: _known(corpus, path) for name, corpus in plain["corpora"].items()},
            model=_known(plain["model"], path),
            timeline=tuple(_entry(entry, path) for entry in plain["timeline"]),
            hidden=tuple(sorted(foreign_types(run))),
            is_longer=any(entry.get("resumes") for entry in plain["timeline"]),
        )


def _entry(plain: dict[str, Any], path: Path) -> Any:
    known = _known(plain, path)
    if known is not None:
        return known
    if plain["type"] != PHASE:
        return HiddenEntry()
    check_name("phase", plain["name"], str(path))
    stages = _known(plain["stages"], path)
    if stages is None:
        return HiddenPhase(name=plain["name"], steps=None)
    tokens = from_plain(plain["tokens"], where=str(path))
    told: Any = SimpleNamespace(
        tokens=tokens,
        length=plain["length"],
        batch_tokens=plain["batch_tokens"],
        stages=stages,
        schedule=Constant(),  # which decides no number of steps
    )
    return HiddenPhase(name=plain["name"], steps=StepPlan(told).steps)


def _known(plain: Any, path: Path) -> Any:
    """A part of a recipe; None where it, or something in it, is of a type that is not Lilliput's."""
    try:
        return from_plain(plain, where=str(path))
    except LilliputError:
        if all(map(is_lilliputs, types_in(plain))):
            raise
        return None
