"""Token files that a run can be made of: text on both sides, and the conversations that the corpus has."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from lilliput.base.errors import DataError
from lilliput.data.small_corpora import Way, groups_with_text
from lilliput.data.split import Split
from lilliput.data.token_files import SIDES

Sides = Mapping[str, Mapping[str, Any]]
"""Counts by side, as the index of token files has them."""
SHORTENED = "shortened"


def lost(side: Mapping[str, Any]) -> dict[str, int]:
    """How many conversations of a side were dropped, by reason, and how many were shortened; nothing that is 0."""
    counts = {**side.get("dropped", {}), SHORTENED: side.get("shortened", 0)}
    return {reason: count for reason, count in counts.items() if count}


def in_words(counts: Mapping[str, int]) -> str:
    """The same in words."""
    dropped = sum(counts.values()) - counts.get(SHORTENED, 0)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.items() if reason != SHORTENED)
    parts = [f"{dropped:,} dropped ({reasons})"] if dropped else []
    parts += [f"{counts[SHORTENED]:,} without their oldest turns"] if counts.get(SHORTENED) else []
    return ", ".join(parts)


def check_lost(name: str, sides: Sides, length: int, allowed: float, phases: Sequence[str]) -> None:
    """Refuse rows that lack more of a chat corpus than is allowed.

    Args:
        name: of the corpus.
        sides: counts by side.
        length: tokens of a row.
        allowed: share of the conversations that may be dropped or shortened.
        phases: names of those that read it.

    Raises:
        DataError: more of them are.
    """
    counts: Counter[str] = Counter()
    for side in SIDES:
        counts.update(lost(sides[side]))
    conversations = sum(sides[side]["conversations"] + sum(sides[side].get("dropped", {}).values()) for side in SIDES)
    share = sum(counts.values()) / max(1, conversations)
    if share <= allowed:
        return
    enough = ceil(100 * share) / 100
    fields = " ".join(f"--set timeline.{phase}.data.lost={enough:g}" for phase in phases)
    raised = f"raise `length` of {' and '.join(map(repr, phases))}, which is {length:,}, rename the roles, or "
    raise DataError(
        f"{share:.1%} of the conversations of {name!r} are not whole in the rows: {in_words(counts)}",
        where=f"{conversations:,} conversations in rows of {length:,} tokens; at most {allowed:.1%} may be lost",
        hint=f"{raised if phases else ''}allow it: {fields} (in a recipe, ChatData(corpus={name!r}, lost={enough:g}))",
    )


def check_sides(name: str, sides: Sides, folder: Path, corpus: Any, split: Split, way: Way) -> None:
    """Refuse token files with nothing to train on, or nothing to measure on.

    Args:
        name: of the corpus.
        sides: counts by side.
        folder: of the token files.
        corpus: read once more where the error has to tell which share would do.
        split: of the recipe.
        way: how it was held out.

    Raises:
        DataError: a side has no text, or no conversation.
    """
    for side, purpose in (("train", "to train on"), ("heldout", "to measure on")):
        counts = sides[side]
        if counts["bytes"] if "bytes" in counts else counts["conversations"]:
            continue
        documents = counts.get("documents", 0)
        what = f"the {documents:,} documents of {name!r} {purpose} are all empty"
        if not documents:
            what = f"nothing of {name!r} is held out" if side == "heldout" else f"nothing of {name!r} is left {purpose}"
        raise DataError(what, where=str(folder), hint=_share(name, corpus, split, way))


def _share(name: str, corpus: Any, split: Split, way: Way) -> str:
    """What to do for something on both sides."""
    fractions = sorted(map(split.fraction, groups_with_text(corpus)))
    if len(fractions) < 2:
        unit = "conversations" if hasattr(corpus, "conversations") else "text"
        return (
            f"give more {unit}: what is there has one name and cannot be parted; if those are rows of one and the same "
            f"id, number them: --set corpora.{name}.id=number (any column that is not there)"
        )
    low, high = fractions[:2]
    if way != "groups" or (hasattr(corpus, "conversations") and low < split.share):
        return "what was held out does not fit into a row: raise `length` of the phase, or hold out more of them"
    digits = next((digits for digits in range(2, 16) if low < ceil(low * 10**digits) / 10**digits <= high), 16)
    share = ceil(low * 10**digits) / 10**digits
    return f"hold out another share of the names: --set split.share={share:.{digits}f}"
