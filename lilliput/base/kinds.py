"""Fields of a spec from a stranger's file against their declarations: Python itself takes any value for any field."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lilliput.base.errors import RunError
from lilliput.base.strangers import shown

_NUMBERS = {int: (int,), float: (int, float)}
_LARGEST = 2**63
"""Numbers from here on, PyTorch does not take."""


def check_kinds(value: Any, kind: Any, *, where: str) -> None:
    """Refuse a value that is not of a kind, or that has a field, however deep, which is not of its declared one.

    Args:
        value: a spec as `from_plain` made it.
        kind: a class, a protocol or another annotation.
        where: the part and the file.

    Raises:
        RunError: one is not; it is named.
    """
    if not _fits(value, kind):
        raise RunError(
            f"{shown(value)} is no {getattr(kind, '__name__', kind)}",
            where=where,
            hint="fetch the folder again, or read it with the version of Lilliput that wrote it",
        )
    if is_dataclass(value):
        for name, declared in _declared(type(value)).items():
            check_kinds(getattr(value, name), declared, where=f"{name} of {where}")


def _declared(spec: type) -> dict[str, Any]:
    try:
        hints = get_type_hints(spec)
    except NameError:  # a package of somebody's that imports its annotations for type checkers alone
        return {}
    return {field.name: hints[field.name] for field in fields(spec)}


def _fits(value: Any, kind: Any) -> bool:
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return any(value is part or value == part for part in parts)
    if origin is tuple:
        kinds = [parts[0]] * len(value) if parts[1:] == (...,) and isinstance(value, tuple) else parts
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_fits, value, kinds))
    if kind in _NUMBERS:  # true is an int, too; NaN is neither above nor below
        return type(value) in _NUMBERS[kind] and -_LARGEST < value < _LARGEST
    if kind is None or kind is NoneType:
        return value is None
    if getattr(kind, "_is_protocol", False):
        return is_dataclass(value) and all(hasattr(value, name) for name in vars(kind) if not name.startswith("_"))
    kind = Mapping if origin is not None and issubclass(origin, Mapping) else kind
    return isinstance(value, kind) if isinstance(kind, type) else True
