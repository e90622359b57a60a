"""Token files that a run can be made of: text on both sides, and the conversations that the corpus has."""

from math import ceil
from pathlib import Path
from typing import Any

from lilliput.base.errors import DataError
from lilliput.data.formats import format_of
from lilliput.data.lost_conversations import Sides
from lilliput.data.small_corpora import Way, groups_with_text
from lilliput.data.split import Split


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
        DataError: a side has nothing.
    """
    for side, purpose in (("train", "to train on"), ("heldout", "to measure on")):
        counts = sides[side]
        if format_of(corpus).size(counts):
            continue
        documents = counts.get("documents", 0)
        what = f"the {documents:,} documents of {name!r} {purpose} are all empty"
        if not documents:
            what = f"nothing of {name!r} is held out" if side == "heldout" else f"nothing of {name!r} is left {purpose}"
        raise DataError(what, where=str(folder), hint=_share(name, corpus, split, way))


def _share(name: str, corpus: Any, split: Split, way: Way) -> str:
    """Return what to do for something on both sides."""
    format = format_of(corpus)
    fractions = sorted(map(split.fraction, groups_with_text(corpus)))
    if len(fractions) < 2:
        return (
            f"give more {format.noun}: what is there has one name and cannot be parted; if those are rows of one "
            f"and the same id, number them: --set corpora.{name}.id=number (any column that is not there)"
        )
    low, high = fractions[:2]
    if way != "groups" or (format.packs_rows and low < split.share):
        return "what was held out does not fit into a row: raise `length` of the phase, or hold out more of them"
    digits = next((digits for digits in range(2, 16) if low < ceil(low * 10**digits) / 10**digits <= high), 16)
    share = ceil(low * 10**digits) / 10**digits
    return f"hold out another share of the names: --set split.share={share:.{digits}f}"
