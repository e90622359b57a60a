"""The shape of the model along a recipe's timeline."""

from collections.abc import Iterator
from typing import NamedTuple

from lilliput.model import ModelSpec
from lilliput.recipe import Entry, Recipe


class EntryShape(NamedTuple):
    """An entry of a timeline, and the model's shape before and after it; only growths change it."""

    index: int
    """Index in the timeline, from 0."""
    entry: Entry
    before: ModelSpec
    after: ModelSpec


def at_first(recipe: Recipe) -> ModelSpec:
    """The shape that the timeline begins with."""
    return recipe.model.shape


def timeline_shapes(recipe: Recipe) -> Iterator[EntryShape]:
    """Every entry of the timeline in order."""
    spec = at_first(recipe)
    for index, entry in enumerate(recipe.timeline):
        before = spec
        spec = entry.shape(spec)
        yield EntryShape(index, entry, before, spec)
