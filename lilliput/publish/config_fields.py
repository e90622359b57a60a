"""Entries of a config.json that may come from anybody: what each has to be, or an error that names it."""

from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from lilliput.base.errors import RunError
from lilliput.base.limits import limit, raising
from lilliput.base.untrusted import shown

T = TypeVar("T")

LARGEST = 2**31 - 1


def whole_number(entries: Mapping[str, Any], key: str, where: str) -> int:
    """A number of things, at least one."""
    value = entries.get(key)
    if type(value) is not int or not 1 <= value <= LARGEST:  # true is an int, too
        refuse(key, value, where, f"a whole number from 1 to {LARGEST} belongs there: fetch the folder again")
    return value


def depth(entries: Mapping[str, Any], where: str) -> int:
    """The number of layers, which is limited: names of as many weights are written out."""
    layers = whole_number(entries, "num_hidden_layers", where)
    if layers > limit("model_layers"):
        refuse("num_hidden_layers", layers, where, raising("model_layers"))
    return layers


def positive(entries: Mapping[str, Any], key: str, where: str) -> float:
    """A number above 0."""
    value = entries.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < LARGEST:  # NaN is nowhere
        return float(value)
    refuse(key, value, where, "a number above 0 belongs there: fetch the folder again")


def flag(entries: Mapping[str, Any], key: str, where: str) -> bool:
    """True or false; false where nothing is said."""
    value = entries.get(key, False)
    if type(value) is not bool:
        refuse(key, value, where, "true or false belongs there: fetch the folder again")
    return value


def choice(entries: Mapping[str, Any], key: str, meanings: Mapping[Any, T], where: str) -> T:
    """Return the meaning of an entry that has one of a few values.

    Args:
        entries: the config.
        key: name of the entry.
        meanings: meaning of each known value.
        where: the folder, for the error.

    Raises:
        RunError: the value is unknown.
    """
    value = entries.get(key)
    for known, meaning in meanings.items():
        if type(value) is type(known) and value == known:
            return meaning
    refuse(key, value, where, f"only {', '.join(map(str, meanings))} can be read")


def refuse(key: str, value: Any, where: str, hint: str) -> NoReturn:
    """Refuse an entry that no model here has.

    Args:
        key: name of the entry.
        value: its value.
        where: the folder.
        hint: the next thing to do.

    Raises:
        RunError: always.
    """
    raise RunError(f"{key} is {shown(value)}", where=f"config.json of {where}", hint=hint)
