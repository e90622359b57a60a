"""What a recipe names and nobody has built yet: the plan of such a recipe can be read, but it cannot run.

A spec of a part to come says so by a class attribute, `not_built: ClassVar[str]`, a few words for what it would do.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from lilliput.base.errors import RecipeError
from lilliput.recipe import Recipe


def missing_parts(recipe: Recipe) -> list[str]:
    """One line a part that is not built: its path in the recipe as `--set` has it, its name, and what it is."""
    return [f"{path}: {type(spec).__name__}, {spec.not_built}" for path, spec in _not_built(recipe, "")]


def refuse_missing(recipe: Recipe) -> None:
    """Refuse a recipe that cannot run, before anything is done.

    Raises:
        RecipeError: parts of it are not built; each is named.
    """
    if missing := missing_parts(recipe):
        raise RecipeError(
            "these parts are not built yet: " + "; ".join(missing),
            where=f"recipe {recipe.name!r}",
            hint="`lilliput plan` works without them; a recipe of your own can do without them too",
        )


def _not_built(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(getattr(type(value), "not_built", None), str):
        yield path, value
    if is_dataclass(value):
        parts = [(field.name, getattr(value, field.name)) for field in fields(value)]
    elif isinstance(value, Mapping):
        parts = list(value.items())
    elif isinstance(value, tuple):
        parts = [(getattr(item, "name", str(place)), item) for place, item in enumerate(value)]
    else:
        parts = []
    for name, part in parts:
        yield from _not_built(part, f"{path}.{name}" if path else str(name))
