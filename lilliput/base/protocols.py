"""Parts of a recipe against the protocols that they have to be: what one lacks is named before anything is done."""

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

from lilliput.base.errors import RecipeError
from lilliput.base.field_types import asked, declared
from lilliput.base.untrusted import shown


def check_parts(spec: Any) -> None:
    """Refuse a spec with a part that is not what the protocol of its field asks for.

    Raises:
        RecipeError: a part is none, or lacks methods; they are named.
    """
    for name, kind in declared(type(spec)).items():
        for part, wanted in _parts(getattr(spec, name), kind):
            if protocols := _protocols(part, wanted):
                _check(part, protocols, f"{type(spec).__name__}({name}=...)")


def check_module(module: Any, protocol: type, *, built_by: Any) -> None:
    """Refuse what a spec built where it lacks methods of a protocol.

    Args:
        module: what `build` returned.
        protocol: what it has to be.
        built_by: the spec.

    Raises:
        RecipeError: it lacks some; they are named.
    """
    if lacking := asked(protocol) - {*dir(module)}:
        raise RecipeError(
            f"{type(module).__name__} has no {_listed(lacking)}",
            where=f"what {type(built_by).__name__}.build returns",
            hint=f"define what {protocol.__name__} in {_file(protocol)} lists",
        )


def provides(module: Any, protocol: type) -> bool:
    """Return whether a module has the methods that a protocol adds to those it extends: an optional capability."""
    return not asked(protocol) - {*dir(module)}


def _parts(value: Any, kind: Any) -> Iterator[tuple[Any, Any]]:
    """The value of a field, or those in its tuple or mapping, each with what it is declared as."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is tuple and inside[1:] == (...,) and isinstance(value, tuple):
        yield from ((one, inside[0]) for one in value)
    elif isinstance(value, Mapping) and len(inside) == 2 and origin not in (Union, UnionType):
        yield from ((one, inside[1]) for one in value.values())
    else:
        yield value, kind


def _protocols(part: Any, wanted: Any) -> list[type]:
    """The protocols that a part has to be one of; none where it is of another kind that will do."""
    kinds = get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (wanted,)
    if part is None or any(isinstance(part, kind) for kind in kinds if _is_class(kind)):
        return []
    return [kind for kind in kinds if getattr(kind, "_is_protocol", False)]


def _is_class(kind: Any) -> bool:
    return isinstance(kind, type) and get_origin(kind) is None and not getattr(kind, "_is_protocol", False)


def _check(part: Any, protocols: list[type], where: str) -> None:
    if isinstance(part, type):
        name = part.__name__
        raise RecipeError(f"{name} is a class, not a value", where=where, hint=f"write {name}(...)")
    lacking, protocol = min(((asked(each) - {*dir(part)}, each) for each in protocols), key=lambda pair: len(pair[0]))
    if lacking and type(part).__module__ == "builtins":
        kinds = " or ".join(each.__name__ for each in protocols)
        raise RecipeError(f"{shown(part)} is not a {kinds}", where=where, hint=f"give a spec, see {_file(protocol)}")
    if lacking:
        raise RecipeError(
            f"{type(part).__name__} has no {_listed(lacking)}",
            where=where,
            hint=f"define what {protocol.__name__} in {_file(protocol)} lists",
        )


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


def _file(protocol: type) -> str:
    return f"{protocol.__module__.replace('.', '/')}.py"
