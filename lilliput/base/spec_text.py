"""A spec, or a tuple, as people write it on a command line: `GQA(heads=4, kv_heads=2, head_width=16)`.

It is read as Python is, but nothing is evaluated: names stand for types of specs alone, those that fit the field, and
everything else is a plain value.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Literal, NoReturn, get_args, get_origin

from lilliput.base.errors import LilliputError, RecipeError
from lilliput.base.field_types import declared, fits, homes, type_fits
from lilliput.base.spec import types_near, unknown_name

_WRITTEN = re.compile(r"(?:[A-Z]\w*)?\(.*", re.DOTALL)
_KINDS = {int: "whole number", float: "number", str: "text in quotes", bool: "True or False"}
_OPENING, _CLOSING = "([{", ")]}"


def is_written(text: str) -> bool:
    """Return whether a text begins as a spec or a tuple does."""
    return _WRITTEN.fullmatch(text.strip()) is not None


def split(text: str) -> list[str]:
    """A text cut at its commas, but for those in brackets and in quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if letter == "," and not depth and not quote:
            parts.append("")
            continue
        if quote or (letter in "\"'" and depth):
            quote = "" if letter == quote else quote or letter
        else:
            depth += (letter in _OPENING) - (letter in _CLOSING)
        parts[-1] += letter
    return parts


def read(text: str, kind: Any, old: Any, *, where: str) -> Any:
    """The value that a text writes, for a field.

    Args:
        text: as `is_written` has it.
        kind: what the field is declared as; None where that is not known.
        old: what the field has now: types beside its own are found too.
        where: the option that the text is of.

    Raises:
        RecipeError: it is not written as a value is, no type of that name fits there, or its fields do not fit.
    """
    try:
        parsed = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        said = error.msg if isinstance(error, SyntaxError) else type(error).__name__
        raise RecipeError(
            f"{text!r:.200} cannot be read ({said})",
            where=where,
            hint="write a part by its name, e.g. 'GQA(heads=4, kv_heads=2, head_width=16)', in quotes for the shell",
        ) from error
    value = _value(parsed, kind, old, where)
    if kind is not None and not fits(value, kind):
        _misfit(value, kind, where)
    return value


def write(value: Any) -> str:
    """The text of a value, which `read` reads as the same value; fields that have their default are left out."""
    if is_dataclass(value) and not isinstance(value, type):
        given = (field for field in fields(value) if getattr(value, field.name) != _default(field))
        return f"{type(value).__name__}({', '.join(f'{one.name}={write(getattr(value, one.name))}' for one in given)})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {write(item)}' for key, item in value.items())}}}"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(write, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, float) and float(f"{value:g}") == value and "." not in f"{value:g}":
        return f"{value:g}" if "e" in f"{value:g}" else f"{value:g}.0"
    return repr(value)


def _value(node: ast.expr, kind: Any, old: Any, where: str) -> Any:
    match node:
        case ast.Constant(value=float() as value) if value.is_integer() and not fits(value, kind):
            return int(value) if fits(int(value), kind) else value
        case ast.Constant(value=None | bool() | int() | float() | str() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.Tuple(elts=items) | ast.List(elts=items):
            its = get_args(kind)[0] if get_origin(kind) is tuple and get_args(kind)[1:] == (...,) else None
            return tuple(_value(item, its, None, where) for item in items)
        case ast.Dict(keys=keys, values=values):
            names = [_value(key, None, None, where) if key is not None else None for key in keys]
            if all(isinstance(name, str) for name in names):
                return dict(zip(names, (_value(item, None, None, where) for item in values), strict=True))
        case ast.Call(func=ast.Name(id=name), args=given, keywords=named) if all(one.arg for one in named):
            return _spec(name, given, {str(one.arg): one.value for one in named}, kind, old, where)
    raise RecipeError(
        f"{ast.unparse(node)!r:.120} is not a plain value",
        where=where,
        hint="write numbers, texts in quotes, None, True, False, tuples, and parts by name with their fields",
    )


def _spec(name: str, given: list[ast.expr], named: dict[str, ast.expr], kind: Any, old: Any, where: str) -> Any:
    """The spec of a type's name and its fields, as far as both fit."""
    found = types_near(homes(kind) | ({type(old).__module__} if is_dataclass(old) else set()))
    fitting = {key: one for key, one in found.items() if kind is None or type_fits(one, kind)}
    if name not in fitting:
        what = f"{name} does not fit there" if name in found else f"there is no {name} that fits there"
        hint = unknown_name(name, fitting, where).hint if fitting else "give a plain value: no part has its place there"
        raise RecipeError(what, where=where, hint=hint)
    spec = fitting[name]
    known = [field for field in fields(spec) if field.init]
    texts = dict(zip([field.name for field in known if not field.kw_only], given, strict=False))
    if len(texts) < len(given):
        raise RecipeError(
            f"{name} takes its fields by name",
            where=where,
            hint=f"write {name}({', '.join(f'{field.name}=...' for field in known)})",
        )
    for key in named:
        if key not in [field.name for field in known]:
            raise unknown_name(key, [field.name for field in known], f"{name}(...) of {where}")
    texts |= named
    if missing := [field.name for field in known if field.name not in texts and _default(field) is MISSING]:
        raise RecipeError(
            f"{name}(...) lacks {' and '.join(missing)}",
            where=where,
            hint=f"write {name}({', '.join(f'{key}=...' for key in dict.fromkeys([*texts, *missing]))})",
        )
    kinds = declared(spec)
    values = {key: _value(node, kinds.get(key), None, where) for key, node in texts.items()}
    for key, value in values.items():
        if key in kinds and not fits(value, kinds[key]):
            _misfit(value, kinds[key], f"{key} of {name}(...), {where}")
    try:
        return spec(**values)
    except LilliputError as error:
        raise type(error)(error.what, where=f"{error.where}, {where}", hint=error.hint) from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise RecipeError(
            f"the values do not fit ({error})", where=where, hint="give values that the fields allow"
        ) from error


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _misfit(value: Any, kind: Any, where: str) -> NoReturn:
    if get_origin(kind) is Literal:
        raise unknown_name(str(value), map(str, get_args(kind)), where)
    called = _KINDS.get(kind) or (kind.__name__ if isinstance(kind, type) and get_origin(kind) is None else str(kind))
    raise RecipeError(f"{write(value)} is not a {called}", where=where, hint="give a value of that kind")
