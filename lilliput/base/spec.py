"""Frozen dataclasses <-> plain dicts: how a recipe becomes `recipe.json` and comes back.

A spec is a frozen dataclass; `{"type": "lilliput.nn.gqa:GQA", "heads": 8, ...}` is its plain form. The import path is
the registry: whatever a recipe imports can be stored and loaded again, and nothing else can.

Importing a module runs it, and a plain form may come from a stranger. So only two kinds of types are ever looked up:
those of Lilliput's own modules, and those that this process has itself turned into a plain form, as a recipe file that
was named on the command line makes it do.
"""

import difflib
import importlib
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from math import inf
from types import NoneType
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

from lilliput.base.errors import LilliputError, RecipeError

T = TypeVar("T")

_OWN_TYPE = re.compile(r"lilliput(?!\.(cli|benchmarks)\b)(\.[a-z][a-z0-9_]*)+:[A-Z]\w*")
"""A class in a module of Lilliput that can be imported without anything else happening: no script, no `__main__`."""
_met: dict[str, type] = {}
"""The types that `to_plain` has met in this process, by name."""


def to_plain(value: Any) -> Any:
    """A spec, or a tuple or dict of specs, as JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        name = f"{kind.__module__}:{kind.__qualname__}"
        _met[name] = kind
        return {"type": name} | {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise RecipeError(
        f"{value!r} of type {type(value).__name__} cannot be part of a recipe",
        where="a spec's field",
        hint="use numbers, text, tuples, dicts and frozen dataclasses only",
    )


def from_plain(value: Any, *, where: str = "recipe.json") -> Any:
    """The inverse of `to_plain`; lists become tuples.

    Raises:
        RecipeError: a type is neither Lilliput's nor one that this process has met, or is no frozen dataclass; or a
            field is unknown.
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
            raise _unknown(key, known, f"{value['type']} in {where}")
    try:
        return kind(**given)
    except LilliputError as error:
        raise type(error)(error.what, where=f"{error.where} in {where}", hint=error.hint) from error
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise RecipeError(
            f"the values do not fit ({error})",
            where=f"{value['type']} in {where}",
            hint="give every field a value of its kind; `lilliput recipe show NAME --json` prints a whole recipe",
        ) from error


def override(spec: T, path: str, text: str) -> T:
    """A copy of `spec` with the field at a dotted `path` set from text, e.g. `timeline.0.tokens`, `1e9`.

    The text is read as the type that the field has now: a unit takes its number.

    Raises:
        RecipeError: no such field, or the text does not fit the field's type.
    """
    return override_all(spec, [(path, text)])


def override_all(spec: T, changes: Iterable[tuple[str, str]]) -> T:
    """The same for several fields at once, which are checked together: a new vocabulary of tokenizer and model, say."""
    return _override(spec, [_Change(path.split("."), path, text) for path, text in changes])


class _Change(NamedTuple):
    keys: list[str]
    """What is left of the path."""
    path: str
    text: str
    kind: Any = None
    """What the field is declared as, where it is one of a spec."""

    @property
    def where(self) -> str:
        return f"--set {self.path}={self.text}"


def _override(value: Any, changes: list[_Change]) -> Any:
    for change in changes:
        if not change.keys:
            if len(changes) > 1:
                raise RecipeError("the field is set twice", where=change.where, hint="leave one of them out")
            return _parse(value, change.text, change.path, change.kind)
    below: dict[str, list[_Change]] = {}
    for change in changes:
        key, *rest = change.keys
        found = _key_of(value, key, change.where)
        below.setdefault(found, []).append(change._replace(keys=rest, kind=_declared(value, found)))
    if isinstance(value, tuple):
        return tuple(_override(item, below.get(str(place), [])) for place, item in enumerate(value)) if below else value
    if not below:
        return value
    if isinstance(value, Mapping):
        return dict(value) | {key: _override(value[key], its) for key, its in below.items()}
    try:
        return replace(value, **{key: _override(getattr(value, key), its) for key, its in below.items()})
    except ValueError as error:
        raise RecipeError(str(error), where=changes[-1].where, hint="give a value that fits") from error


def _key_of(value: Any, key: str, where: str) -> str:
    """The name of the part of `value` that a path means by `key`: of a tuple, its place."""
    if isinstance(value, tuple):
        names = [getattr(item, "name", str(place)) for place, item in enumerate(value)]
        place = names.index(key) if key in names else int(key) if key.isdecimal() else len(value)
        if place >= len(value):
            raise _unknown(key, names, where)
        return str(place)
    if is_dataclass(value) or isinstance(value, Mapping):
        known = [field.name for field in fields(value)] if is_dataclass(value) else list(value)
        if key not in known:
            raise _unknown(key, known, where)
        return key
    raise RecipeError(f"{value!r} has no part named {key!r}", where=where, hint="end the path one name earlier")


def _declared(spec: Any, name: str) -> Any:
    """What a field of a spec is declared as; None where that cannot be told, or this is no spec."""
    try:
        return get_type_hints(type(spec)).get(name) if is_dataclass(spec) else None
    except NameError:  # declared with a name that is there for type checkers alone
        return None


def _parse(old: Any, text: str, path: str, kind: Any) -> Any:
    if old is None:
        return _parse_unset(text, path, kind)
    if text.lower() == "none" and NoneType in get_args(kind) and not isinstance(old, str):
        return None
    try:
        if isinstance(old, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(old, int):
            number = float(text)
            return int(number) if number == int(number) else _fail()
        if isinstance(old, float):
            return float(text)
        if isinstance(old, str):
            return text
        if is_dataclass(old) and len(fields(old)) == 1:
            only = fields(old)[0].name
            return replace(old, **{only: _parse(getattr(old, only), text, path, None)})  # type: ignore[type-var]
    except (KeyError, ValueError, OverflowError):
        pass
    raise RecipeError(
        f"{text!r} does not fit, the value there now is {old!r}",
        where=f"--set {path}={text}",
        hint="give a value of the same kind, or a longer path to one of its fields",
    )


def _parse_unset(text: str, path: str, kind: Any) -> Any:
    """Text as one of the kinds that a field may have where it has nothing yet."""
    examples = {bool: True, int: 0, float: 0.0, str: ""}
    kinds = [one for one in examples if one in get_args(kind)]
    for one in kinds:
        with suppress(RecipeError):
            return _parse(examples[one], text, path, None)
    names = " or ".join(one.__name__ for one in kinds)
    raise RecipeError(
        f"{text!r} does not fit, the field is not set now",
        where=f"--set {path}={text}",
        hint=f"give one of: {names}" if names else "set it in a recipe file: lilliput recipe copy NAME",
    )


def _fail() -> Any:
    raise ValueError


def check_range(where: str, low: float, below: float, **numbers: float) -> None:
    """Refuse numbers of a spec that do not lie in [low, below); NaN lies nowhere.

    Raises:
        RecipeError: one does not; it is named.
    """
    for name, number in numbers.items():
        if not low <= number < below:
            most = f" and less than {below:g}" if below < inf else ""
            raise RecipeError(f"{name} cannot be {number}", where=where, hint=f"give at least {low:g}{most}")


def check_cap(where: str, **caps: float | None) -> None:
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
    kind = _met.get(name) if isinstance(name, str) else None
    kind = kind or _own_type(name, where)
    if not (isinstance(kind, type) and is_dataclass(kind) and kind.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        raise RecipeError(
            f"{name!r} is not a spec", where=where, hint="only frozen dataclasses can be part of a recipe"
        )
    return kind


def _own_type(name: Any, where: str) -> type:
    """The class of Lilliput that a type names; nothing else is imported."""
    if not isinstance(name, str) or not _OWN_TYPE.fullmatch(name):
        raise RecipeError(
            f"the type {name!r:.120} is not one of Lilliput's, and code that a file names is not run",
            where=where,
            hint="if it is your own, name the recipe file that defines it: lilliput COMMAND RECIPE.py --out FOLDER",
        )
    module, _, class_name = name.partition(":")
    try:
        return getattr(importlib.import_module(module), class_name)
    except (ImportError, AttributeError) as error:
        raise RecipeError(
            f"this version of Lilliput has no type {name!r:.120}", where=where, hint="use the version that wrote it"
        ) from error


def _unknown(key: str, known: list[str], where: str) -> RecipeError:
    near = difflib.get_close_matches(key, known, n=3) or sorted(known)
    return RecipeError(f"{key!r} is unknown", where=where, hint=f"nearest names: {', '.join(near)}")
