"""Fields of a spec from a stranger's file against their declarations: Python itself takes any value for any field."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lilliput.base.errors import RunError
from lilliput.base.untrusted import shown

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
    if not fits(value, kind):
        raise RunError(
            f"{shown(value)} is not of type {getattr(kind, '__name__', kind)}",
            where=where,
            hint="fetch the folder again, or read it with the version of Lilliput that wrote it",
        )
    if is_dataclass(value):
        for name, its in declared(type(value)).items():
            check_kinds(getattr(value, name), its, where=f"{name} of {where}")


def type_fits(kind: type, wanted: Any) -> bool:
    """Return whether specs of a type are of a kind, as far as the type says."""
    origin = get_origin(wanted)
    if origin in (Union, UnionType):
        return any(type_fits(kind, part) for part in get_args(wanted))
    if getattr(wanted, "_is_protocol", False):
        return asked(wanted) <= {*dir(kind), *(field.name for field in fields(kind))}
    return isinstance(wanted, type) and issubclass(kind, wanted)


def homes(wanted: Any) -> set[str]:
    """The modules that a kind is from, all of them where it is a union."""
    if isinstance(wanted, type) and get_origin(wanted) is None:
        return {wanted.__module__}
    return {home for part in get_args(wanted) for home in homes(part)}


def asked(protocol: type) -> set[str]:
    """Return the names of the methods, properties and attributes that a protocol asks for, its bases with it."""
    bases = [base for base in protocol.__mro__ if getattr(base, "_is_protocol", False)]
    names = {name for base in bases for name in (*vars(base), *getattr(base, "__annotations__", {}))}
    return {name for name in names if not name.startswith("_") or name == "__call__"}


def declared(spec: type) -> dict[str, Any]:
    """Return what each field of a spec is declared as; nothing where that cannot be told."""
    try:
        hints = get_type_hints(spec)
    except NameError:  # a package of somebody's that imports its annotations for type checkers alone
        return {}
    return {field.name: hints[field.name] for field in fields(spec)}


def fits(value: Any, kind: Any) -> bool:
    """Return whether a value is of a kind, as far as its own type says; its fields are not checked."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return any(value is part or value == part for part in parts)
    if origin is tuple:
        kinds = [parts[0]] * len(value) if parts[1:] == (...,) and isinstance(value, tuple) else parts
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(fits, value, kinds))
    if kind in _NUMBERS:  # true is an int, too; NaN is neither above nor below
        return type(value) in _NUMBERS[kind] and -_LARGEST < value < _LARGEST
    if kind is None or kind is NoneType:
        return value is None
    if getattr(kind, "_is_protocol", False):
        return is_dataclass(value) and all(hasattr(value, name) for name in asked(kind))
    kind = Mapping if origin is not None and issubclass(origin, Mapping) else kind
    return isinstance(value, kind) if isinstance(kind, type) else True
