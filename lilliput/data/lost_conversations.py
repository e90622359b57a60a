"""Counts, reports and limits the conversations, or pairs of them, that were dropped or shortened."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from lilliput.base.errors import DataError
from lilliput.data.token_files import SIDES

Sides = Mapping[str, Mapping[str, Any]]
"""Counts by side, as the index of token files has them."""
SHORTENED = "shortened"


def lost(side: Mapping[str, Any]) -> dict[str, int]:
    """Count the items of a side that were dropped, by reason, and shortened; zero counts are left out."""
    counts = {**side.get("dropped", {}), SHORTENED: side.get("shortened", 0)}
    return {reason: count for reason, count in counts.items() if count}


def in_words(counts: Mapping[str, int]) -> str:
    """The same in words."""
    dropped = sum(counts.values()) - counts.get(SHORTENED, 0)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.items() if reason != SHORTENED)
    parts = [f"{dropped:,} dropped ({reasons})"] if dropped else []
    parts += [f"{counts[SHORTENED]:,} without their oldest turns"] if counts.get(SHORTENED) else []
    return ", ".join(parts)


def check_lost(
    name: str, sides: Sides, length: int, allowed: float, phases: Sequence[str], *, noun: str, reader: str
) -> None:
    """Refuse rows that lack more of a corpus than is allowed.

    Args:
        name: of the corpus.
        sides: counts by side.
        length: tokens of a row.
        allowed: share of the items that may be dropped or shortened.
        phases: names of those that read it.
        noun: of the items, by which their counts are named too.
        reader: name of the data spec that has the limit.

    Raises:
        DataError: more of them are.
    """
    counts: Counter[str] = Counter()
    for side in SIDES:
        counts.update(lost(sides[side]))
    items = sum(sides[side][noun] + sum(sides[side].get("dropped", {}).values()) for side in SIDES)
    share = sum(counts.values()) / max(1, items)
    if share <= allowed:
        return
    enough = ceil(100 * share) / 100
    fields = " ".join(f"--set timeline.{phase}.data.lost={enough:g}" for phase in phases)
    raised = f"raise `length` of {' and '.join(map(repr, phases))}, which is {length:,}, rename the roles, or "
    raise DataError(
        f"{share:.1%} of the {noun} of {name!r} are not whole in the rows: {in_words(counts)}",
        where=f"{items:,} {noun} in rows of {length:,} tokens; at most {allowed:.1%} may be lost",
        hint=f"{raised if phases else ''}allow it: {fields} (in a recipe, {reader}(corpus={name!r}, lost={enough:g}))",
    )
