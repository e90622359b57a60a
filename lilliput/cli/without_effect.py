"""Refuses options that were given where they change nothing, so that nobody takes them for followed.

An option whose default is a value cannot be told from one that was left out: those that are checked default to None.
"""

from collections.abc import Mapping

from lilliput.base.errors import LilliputError


def refuse_without_effect(given: Mapping[str, object], when: str, instead: str) -> None:
    """Refuse options that have no effect.

    Args:
        given: values by option; None, False and empty ones were left out, 0 was not.
        when: where they have none, such as `without --push`.
        instead: completes "leave it out, or ...".

    Raises:
        LilliputError: one was given.
    """
    useless = [name for name, value in given.items() if not (value is None or value is False or value in ("", []))]
    if not useless:
        return
    *others, last = useless
    names, it = (f"{', '.join(others)} and {last}", "them") if others else (last, "it")
    raise LilliputError(
        f"{names} {'have' if others else 'has'} no effect {when}",
        where=" ".join(useless),
        hint=f"leave {it} out, or {instead}",
    )
