"""Frozen dataclasses <-> plain dicts: how a recipe becomes `recipe.json` and comes back.

A spec is a frozen dataclass; `{"type": "lilliput.nn.gqa:GQA", "heads": 8, ...}` is its plain form. The import path is
the registry: whatever a recipe imports can be stored and loaded again, and nothing else can.

Importing a module runs it, and a plain form may come from a stranger. So only three kinds of types are ever looked up:
those of Lilliput's own modules, those of the recipe files that are in use (`lilliput.base.own_code`), which somebody
typed or allowed, and those of a program's own modules that it has itself turned into a plain form.
"""

import difflib
import pkgutil
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from math import inf
from types import ModuleType
from typing import Any

from lilliput.base.errors import LilliputError, RecipeError
from lilliput.base.own_code import classes_in_use, is_own, plain_name, type_in_use

LATER = {"later": True}
"""Metadata of a spec's field that recipes did not always have: where it has its default it is left out of the plain
form, so that what was made before it was there has the same hash as ever."""

_OWN_TYPE = re.compile(r"lilliput(?!\.(cli|benchmarks)\b)(\.[a-z][a-z0-9_]*)+:[A-Z]\w*")
"""A class in a module of Lilliput that can be imported without anything else happening: no script, no `__main__`."""
_met: dict[str, type] = {}
"""Types that `to_plain` was given in this process, by name; not types of recipe files, where two may have one name."""


def to_plain(value: Any) -> Any:
    """A spec, or a tuple or dict of specs, as JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        values = {field.name: getattr(value, field.name) for field in fields(value)}
        stored = (
            field for field in fields(value) if not field.metadata.get("later") or values[field.name] != field.default
        )
        return {"type": _meet(type(value))} | {field.name: to_plain(values[field.name]) for field in stored}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise RecipeError(
        f"{value!r} of type {type(value).__name__} cannot be part of a recipe",
        where="a spec's field",
        hint="use numbers, text, tuples, dicts and classes with @dataclass(frozen=True, kw_only=True) above them",
    )


def _meet(kind: type) -> str:
    """Allow a type in plain forms that this process reads from now on; the name that it has there."""
    name = plain_name(kind)
    if not is_own(kind):
        _met[name] = kind
    return name


_NESTED = 3
"""Dots in the name of a package that holds some kinds of what the package around it holds, as
`lilliput.data.corpora.documentation` does."""


def types_near(homes: Iterable[str]) -> dict[str, type]:
    """Specs by the name of their class: those in Lilliput's modules that lie beside some, and those of other modules.

    Args:
        homes: modules, e.g. `lilliput.nn.hgrn2`, beside which the other mixers lie; others than Lilliput's add nothing.
    """
    own = {home for home in homes if _OWN_TYPE.fullmatch(f"{home}:Any")}
    packages = {home.rpartition(".")[0] for home in own} - {"lilliput"}
    packages |= {name.rpartition(".")[0] for name in packages if name.count(".") == _NESTED}
    beside = (module for name in packages for module in pkgutil.iter_modules(import_module(name).__path__, f"{name}."))
    own |= {module.name for module in beside if not module.ispkg and _OWN_TYPE.fullmatch(f"{module.name}:Any")}
    found: dict[str, type] = {}
    for module in sorted(own):
        found |= _specs_of(import_module(module))
    return found | {kind.__name__: kind for kind in (*_met.values(), *classes_in_use()) if is_spec(kind)}


def is_spec(kind: Any) -> bool:
    """Return whether this is the type of a spec, a frozen dataclass."""
    return isinstance(kind, type) and is_dataclass(kind) and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]


def _specs_of(module: ModuleType) -> dict[str, type]:
    own = (kind for kind in vars(module).values() if is_spec(kind) and kind.__module__ == module.__name__)
    return {kind.__name__: kind for kind in own if not kind.__name__.startswith("_")}


def from_plain(value: Any, *, where: str = "recipe.json") -> Any:
    """The inverse of `to_plain`; lists become tuples.

    Raises:
        RecipeError: a type is none that is looked up, or is no frozen dataclass; or a field is unknown.
    """
    if isinstance(value, list):
        return tuple(from_plain(item, where=where) for item in value)
    if not isinstance(value, dict):
        return value
    if "type" not in value:
        return {key: from_plain(item, where=where) for key, item in value.items()}
    kind = _spec_type(value["type"], where)
    known = [field.name for field in fields(kind)]
    given = {key: from_plain(item, where=where) for key, item in value.items() if key != "type"}
    for key in given:
        if key not in known:
            raise unknown_name(key, known, f"{value['type']} in {where}")
    try:
        return kind(**given)
    except LilliputError as error:
        raise type(error)(error.what, where=f"{error.where} in {where}", hint=error.hint) from error
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise RecipeError(
            f"the values do not fit ({error})",
            where=f"{value['type']} in {where}",
            hint="give every field a value of its type; `lilliput recipe show NAME --json` prints a whole recipe",
        ) from error


def types_in(value: Any) -> set[str]:
    """Names of all types in a plain form."""
    if isinstance(value, dict):
        own = {value["type"]} if isinstance(value.get("type"), str) else set()
        return own.union(*map(types_in, value.values()))
    return set().union(*map(types_in, value)) if isinstance(value, list) else set()


def check_range(where: str, low: float, below: float, **numbers: float) -> None:
    """Refuse numbers of a spec that do not lie in [low, below); NaN lies nowhere.

    Raises:
        RecipeError: one does not; it is named.
    """
    for name, number in numbers.items():
        if not low <= number < below:
            most = f" and less than {below:g}" if below < inf else ""
            raise RecipeError(f"{name} cannot be {number}", where=where, hint=f"give at least {low:g}{most}")


def check_softcap(where: str, **caps: float | None) -> None:
    """Refuse soft-caps of a spec that are not above 0; None is no cap.

    Raises:
        RecipeError: one is not; it is named.
    """
    for name, cap in caps.items():
        if cap is not None and not 0 < cap < inf:
            raise RecipeError(f"{name} cannot be {cap}", where=where, hint="give a number above 0, or None for no cap")


def check_choice(where: str, choices: Collection[str], **values: str) -> None:
    """Refuse names that are none of `choices`.

    Raises:
        RecipeError: one is not; it is named.
    """
    for name, value in values.items():
        if value not in choices:
            raise RecipeError(f"{name} cannot be {value!r}", where=where, hint=f"one of: {', '.join(choices)}")


def _spec_type(name: Any, where: str) -> type:
    kind = (type_in_use(name) or _met.get(name)) if isinstance(name, str) and not is_lilliputs(name) else None
    kind = kind or _own_type(name, where)
    if not is_spec(kind):
        raise RecipeError(
            f"{name!r} is not a spec", where=where, hint="only frozen dataclasses can be part of a recipe"
        )
    return kind


def is_lilliputs(name: str) -> bool:
    """Return whether a type has a name that one of Lilliput's own could have."""
    return _OWN_TYPE.fullmatch(name) is not None


def _own_type(name: Any, where: str) -> type:
    """The class of Lilliput that a type names; nothing else is imported."""
    if not isinstance(name, str) or not is_lilliputs(name):
        raise RecipeError(
            f"the type {name!r:.120} is not one of Lilliput's, and code named by a file is not run",
            where=where,
            hint="if it is your own, name the recipe file that defines it: lilliput COMMAND RECIPE.py --out FOLDER",
        )
    module, _, class_name = name.partition(":")
    try:
        return getattr(import_module(module), class_name)
    except (ImportError, AttributeError) as error:
        raise RecipeError(
            f"this version of Lilliput has no type {name!r:.120}",
            where=where,
            hint="use the version that wrote it; of Lilliput 0.1, every version reads releases, and only 0.1 its runs",
        ) from error


def unknown_name(key: str, known: Iterable[str], where: str) -> RecipeError:
    """Make the error for an unknown field, with the nearest known ones."""
    known = sorted(known)
    near = difflib.get_close_matches(key, known, n=3)
    hint = f"nearest names: {', '.join(near)}" if near else f"there are: {', '.join(known)}"
    return RecipeError(f"there is no field {key!r}", where=where, hint=hint)
