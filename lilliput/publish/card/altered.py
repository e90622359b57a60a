"""A card compared with the one that its record makes, figure by figure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

FIGURE = re.compile(r"\d[\d,.]*")
"""A number as cards write it."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Differences between a card and the one that its record makes."""

    figures: int
    """Numbers that stand as the record has them."""
    altered: tuple[str, ...]
    """Lines with figures that are others than the record's, gone, or rows of tables that no record has."""
    added: tuple[str, ...]
    """Other lines with numbers that somebody added: nothing traces these."""


def compare(card: str, fresh: str) -> Comparison:
    """Compare a card with a fresh one of the same record.

    Args:
        card: as it is published, perhaps edited.
        fresh: as the record makes it.
    """
    theirs, ours = card.splitlines(), fresh.splitlines()
    figures, altered, added = 0, list[str](), list[str]()
    for kind, i, j, k, end in SequenceMatcher(a=ours, b=theirs, autojunk=False).get_opcodes():
        gone, new = ours[i:j], theirs[k:end]
        if kind == "equal":
            figures += sum(len(FIGURE.findall(line)) for line in gone)
            continue
        kept = set(range(len(new)))
        for line in gone:
            if not FIGURE.search(line):
                continue
            near = _near(line, new, kept)
            if near is None:
                altered.append(f"gone: {_short(line)}")
                continue
            kept.remove(near)
            if FIGURE.findall(new[near]) != FIGURE.findall(line):
                altered.append(_difference(line, new[near], k + near + 1))
            else:
                figures += len(FIGURE.findall(line))  # the words around them were edited
        for index in sorted(kept):
            if FIGURE.search(new[index]):
                told = f"line {k + index + 1}: {_short(new[index])}"
                (altered if new[index].startswith("|") else added).append(told)
    return Comparison(figures=figures, altered=tuple(altered), added=tuple(added))


def _near(line: str, new: Sequence[str], free: set[int]) -> int | None:
    """The line that this one became, if there is one alike."""
    ratios = {index: SequenceMatcher(a=line, b=new[index], autojunk=False).ratio() for index in free}
    best = max(ratios, key=ratios.__getitem__, default=None)
    return best if best is not None and ratios[best] > 0.6 else None


def _difference(ours: str, theirs: str, number: int) -> str:
    before, after = FIGURE.findall(ours), FIGURE.findall(theirs)
    if len(before) == len(after):
        changed = [(one, other) for one, other in zip(before, after, strict=True) if one != other]
        said = ", ".join(f"{other} where the record has {one}" for one, other in changed[:3])
        return f"line {number} says {said}: {_short(theirs)}"
    return f"line {number} is {_short(theirs)}, the record makes {_short(ours)}"


def _short(line: str) -> str:
    return line if len(line) <= 90 else f"{line[:87]}..."
