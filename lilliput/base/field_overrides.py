"""A spec with some of its fields changed by text, as `--set timeline.pretrain.tokens=1e9` has it."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from types import NoneType
from typing import Any, NamedTuple, TypeVar, get_args, get_origin

from lilliput.base.errors import RecipeError
from lilliput.base.field_types import declared, fits
from lilliput.base.own_code import code_of, using
from lilliput.base.spec import unknown_name
from lilliput.base.spec_text import is_written, read, write

T = TypeVar("T")


def override(spec: T, path: str, text: str) -> T:
    """A copy of `spec` with the field at a dotted `path` set from text, e.g. `timeline.0.tokens`, `1e9`.

    The text is read as the type that the field has now: a unit takes its number. A part may be written by its name,
    `model.mixer=HGRN2(heads=4)`, see `lilliput.base.spec_text`.

    Raises:
        RecipeError: no such field, or the text does not fit the field's type.
    """
    return override_all(spec, [(path, text)])


def override_all(spec: T, changes: Iterable[tuple[str, str]]) -> T:
    """The same for several fields at once, which are checked together: a new vocabulary of tokenizer and model, say."""
    with using(*code_of(spec)):
        return _override(spec, [_Change(path.split("."), path, text) for path, text in changes])


class _Change(NamedTuple):
    keys: list[str]
    """The rest of the path."""
    path: str
    text: str
    kind: Any = None
    """Declared type of the field, if it is a field of a spec."""

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
        below.setdefault(found, []).append(change._replace(keys=rest, kind=_declared(value, found, change.kind)))
    if isinstance(value, tuple):
        return tuple(_override(item, below.get(str(index), [])) for index, item in enumerate(value)) if below else value
    if not below:
        return value
    if isinstance(value, Mapping):
        return dict(value) | {key: _override(value[key], its) for key, its in below.items()}
    try:
        return replace(value, **{key: _override(getattr(value, key), its) for key, its in below.items()})
    except ValueError as error:
        raise RecipeError(str(error), where=changes[-1].where, hint="give a value that the field allows") from error


_KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number, e.g. 12 or 5e6",
    float: "a number, e.g. 0.5 or 2e6",
}
"""Description of the expected value, by the type of the present one."""


def _key_of(value: Any, key: str, where: str) -> str:
    """The name of the part of `value` that a path means by `key`: of a tuple, its index."""
    if isinstance(value, tuple):
        names = [getattr(item, "name", str(index)) for index, item in enumerate(value)]
        index = names.index(key) if key in names else int(key) if key.isdecimal() else len(value)
        if index >= len(value):
            raise unknown_name(key, names, where)
        return str(index)
    if is_dataclass(value) or isinstance(value, Mapping):
        known = [field.name for field in fields(value)] if is_dataclass(value) else list(value)
        if key not in known:
            raise unknown_name(key, known, where)
        return key
    raise RecipeError(f"{value!r} has no field named {key!r}", where=where, hint="end the path one name earlier")


def _declared(value: Any, name: str, kind: Any) -> Any:
    """Return what a part of `value`, itself of a kind, is declared as; None where that cannot be told."""
    if is_dataclass(value):
        return declared(type(value)).get(name)
    parts = get_args(kind)
    if isinstance(value, tuple) and get_origin(kind) is tuple:
        return parts[0] if parts[1:] == (...,) else parts[int(name)]
    return parts[1] if isinstance(value, Mapping) and len(parts) == 2 else None


def _parse(old: Any, text: str, path: str, kind: Any) -> Any:
    where = f"--set {path}={text}"
    if is_written(text) and not isinstance(old, str) and not fits("", kind):
        return read(text, kind, old, where=where)
    if old is None:
        return _parse_unset(text, path, kind)
    if text.lower() == "none" and NoneType in get_args(kind) and not isinstance(old, str):
        return None
    texts = get_args(kind) == (str, ...)
    try:
        if texts:
            listed = json.loads(text) if text.startswith("[") else [part.strip() for part in text.split(",")]
            return tuple(listed) if all(isinstance(one, str) and one for one in listed) else _fail()
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
        f"{text!r} cannot replace {write(old)}",
        where=where,
        hint="give a part by name, 'Name(field=...)', or a longer path, to one of its fields"
        if is_dataclass(old)
        else "give texts with commas between them, or a tuple, '(1, 2)'"
        if isinstance(old, tuple)
        else f"give {_KINDS.get(type(old), 'a value of the same kind')}",
    )


def _parse_unset(text: str, path: str, kind: Any) -> Any:
    """Text as one of the kinds that a field may have where it has nothing yet."""
    if text.lower() == "none" and NoneType in get_args(kind):
        return None
    examples = {bool: True, int: 0, float: 0.0, str: ""}
    kinds = [one for one in examples if one in get_args(kind)]
    for one in kinds:
        with suppress(RecipeError):
            return _parse(examples[one], text, path, None)
    names = " or ".join(one.__name__ for one in kinds)
    raise RecipeError(
        f"{text!r} does not fit this field, which is None now",
        where=f"--set {path}={text}",
        hint=f"give one of: {names}" if names else "write a part by its name, 'Name(field=...)', or a tuple, '(1, 2)'",
    )


def _fail() -> Any:
    raise ValueError
