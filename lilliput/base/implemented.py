"""Parts that a recipe names and that are not built yet: it can be planned, and is refused before it would run."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from lilliput.base.errors import RecipeError


def unimplemented_parts(recipe: Any) -> list[str]:
    """One line a part that a recipe names and that is not built yet: its path as `--set` has it, its name, what it is.

    A spec of a part to come has a class attribute, `not_implemented: ClassVar[str]`, a few words for what it would do.
    The plan of such a recipe can be read, but it cannot run.
    """
    return [f"{path}: {type(spec).__name__}, {spec.not_implemented}" for path, spec in _unimplemented(recipe, "")]


def is_implemented(spec: Any) -> bool:
    """Return whether a spec and all its parts are built."""
    return next(_unimplemented(spec, ""), None) is None


def check_implemented(recipe: Any) -> None:
    """Refuse a recipe that cannot run, before anything is done.

    Raises:
        RecipeError: parts of it are not implemented; each is named.
    """
    if found := unimplemented_parts(recipe):
        raise RecipeError(
            "these parts are not implemented yet: " + "; ".join(found),
            where=f"recipe {recipe.name!r}",
            hint="`lilliput plan` works without them; to train, leave them out in a copy of the recipe",
        )


def _unimplemented(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(getattr(type(value), "not_implemented", None), str):
        yield path, value
    if is_dataclass(value):
        parts = [(field.name, getattr(value, field.name)) for field in fields(value)]
    elif isinstance(value, Mapping):
        parts = list(value.items())
    elif isinstance(value, tuple):
        parts = [(getattr(item, "name", str(index)), item) for index, item in enumerate(value)]
    else:
        parts = []
    for name, part in parts:
        yield from _unimplemented(part, f"{path}.{name}" if path else str(name))
