"""Reading the record of a run: what it lacks, or says in two ways, is an error that names it."""

from collections.abc import Iterator
from typing import Any

from lilliput.base.errors import ExportError, RecipeError
from lilliput.base.spec import from_plain
from lilliput.model import ModelSpec

HINT = "write the card with the version of Lilliput that made the run, or make the release again"
RECIPE_FIELDS = ("type", "name", "seed", "tokenizer", "tokenizer_corpora", "split", "model")
RELEASE_FIELDS = ("type", "name", "layout", "suite", "heldout", "chat", "dtype", "generation", "samples")
LATER_FIELDS = ("formats",)
"""Fields of a release that records do not always have."""


class Part:
    """A part of the record, by its path; reading an entry that is missing or empty raises `ExportError`."""

    def __init__(self, plain: dict[str, Any], path: str = ""):
        self.plain, self._path = plain, path

    def __getitem__(self, key: str) -> Any:
        value = self.optional(key)
        if value is None:
            raise refusal(f"{self._path_of(key)} is empty")
        return value

    def __contains__(self, key: str) -> bool:
        return key in self.plain

    def optional(self, key: str) -> Any:
        """The entry, which has to be there but may be None."""
        if key not in self.plain:
            raise refusal(f"{self._path_of(key)} is missing")
        return _part(self.plain[key], self._path_of(key))

    def items(self) -> Iterator[tuple[str, Any]]:
        return ((key, self[key]) for key in self.plain)

    @property
    def kind(self) -> str:
        """The class of a spec, without its module."""
        return self["type"].partition(":")[2]

    def spec(self) -> Any:
        """The spec that this is the plain form of."""
        try:
            return from_plain(self.plain, where=f"{self._path} of the run record")
        except RecipeError as error:
            raise refusal(f"{self._path} is incomplete: {error.what}") from error

    def _path_of(self, key: str) -> str:
        return f"{self._path}.{key}".removeprefix(".")


def refusal(what: str) -> ExportError:
    """The error of a record that no card can be made from."""
    return ExportError(what, where="the run record that the card is made from", hint=HINT)


def _part(value: Any, path: str) -> Any:
    if isinstance(value, dict):
        return Part(value, path)
    if isinstance(value, list | tuple):
        return [_part(item, f"{path}.{index}") for index, item in enumerate(value)]
    return value


class Timeline:
    """The recipe of a record up to its release, without earlier ones.

    Raises:
        ExportError: the release is not in it, or other phases were run than it has.
    """

    def __init__(self, run: Part):
        self._run, self._recipe, self._release = run, run["recipe"], run["release"]
        name, entries = self._release["name"], self._recipe["timeline"]
        ends = [index for index, entry in enumerate(entries) if entry.kind == "Release" and entry["name"] == name]
        if not ends:
            raise refusal(f"recipe.timeline has no release {name!r}")
        self.end = ends[0]
        """Index of the release in the recipe's timeline."""
        self._entries = [entry for entry in entries[: self.end] if entry.kind != "Release"]
        self.phases = [entry for entry in self._entries if entry.kind == "Phase"]
        planned, run_names = ([phase["name"] for phase in phases] for phases in (self.phases, run["phases"]))
        if planned != run_names:
            raise refusal(f"phases are {run_names}, but recipe.timeline says {planned}")

    def shape(self) -> ModelSpec:
        """The released model's shape: the recipe's, and what became of it by growths.

        Raises:
            ExportError: it does not have as many parameters as the release.
        """
        try:
            start = self._run["shape"] if "shape" in self._run else self._recipe["model"]
            spec = start.spec().shape
            for entry in self._entries:
                if entry.kind != "Phase":  # of which the shape needs no part
                    spec = entry.spec().shape(spec)
            counted = spec.skeleton().parameter_counts()
        except (TypeError, AttributeError) as error:
            raise refusal(f"recipe.model describes no model: {error}") from error
        released = dict(self._release["parameters"].items())
        if counted != released:
            raise refusal(f"release.parameters are {released}, but recipe.model has {counted}")
        return spec

    def corpora(self) -> list[str]:
        """Names of the corpora that the tokenizer, the phases and the release use, in the recipe's order."""
        used = {*self._recipe["tokenizer_corpora"], self._release["heldout"], self._release.optional("chat")}
        for entry in self._entries:
            used |= set(entry["data"].spec().corpora if entry.kind == "Phase" else entry.spec().reads())
        return [name for name in self._recipe["corpora"].plain if name in used]

    def recipe(self) -> dict[str, Any]:
        """The plain recipe without what came after the release, or had nothing to do with it."""
        corpora = {name: self._recipe["corpora"][name].plain for name in self.corpora()}
        later = [field for field in LATER_FIELDS if field in self._release]
        timeline = [entry.plain for entry in self._entries] + [_only(self._release, (*RELEASE_FIELDS, *later))]
        return _only(self._recipe, RECIPE_FIELDS) | {"corpora": corpora, "timeline": timeline}


def _only(part: Part, fields: tuple[str, ...]) -> dict[str, Any]:
    return {field: part.plain[field] for field in fields if part.optional(field) is not None}
