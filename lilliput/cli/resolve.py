"""Resolves RECIPE|RUN of a pipeline command, and asks before the code of a run is run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lilliput.run.target import Target


def resolve(
    name: str,
    *,
    out: Path | None = None,
    overrides: Sequence[str] = (),
    sources: Sequence[str] = (),
    shrunk: bool = False,
    machine: str | None = None,
    more_tokens: Sequence[str] = (),
    trust_code: bool = False,
) -> "Target":
    """Return the `lilliput.run.target.Target` that RECIPE|RUN and its options stand for.

    Code that a run keeps runs only if `trust_code` or the person at the terminal allows it.

    Raises:
        LilliputError: see `lilliput.run.target.find_target`.
    """
    from lilliput.cli.trust import meet
    from lilliput.run.command_record import Command
    from lilliput.run.target import find_target

    command = Command(
        recipe=name,
        shrink=shrunk,
        overrides=tuple(overrides),
        sources=tuple(sources),
        more_tokens=tuple(more_tokens),
        machine=machine,
    )
    return find_target(command, meet=lambda run: meet(run, trusted=trust_code), out=out)
