"""Rows of tokens that begin alike, in groups: what a group has in common is read once, then the rest of each row."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress, count, pairwise
from operator import ne

WORTH = 4
"""Positions that a group has to save: a second pass over a few tokens takes longer than reading them twice."""

Row = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows with a common beginning."""

    shared: int
    """Tokens of the beginning, at least one; all tokens of a row that is alone."""
    rows: tuple[int, ...]
    """Indices of the rows."""


def common_length(one: Row, other: Row) -> int:
    """Count the tokens that two rows begin with alike."""
    return next(compress(count(), map(ne, one, other)), min(len(one), len(other)))


def groups(rows: Sequence[Row], *, most: int) -> list[Group]:
    """Partition rows into groups so that the fewest positions are read.

    Rows with a common beginning are neighbors in sorted order, where m of them save m - 1 times what all have in
    common. The best partition of the first rows is found from the best ones of fewer rows.

    Args:
        rows: no two alike, none empty.
        most: rows of a group at most.
    """
    order = sorted(range(len(rows)), key=rows.__getitem__)
    common = [0, *(common_length(rows[one], rows[other]) for one, other in pairwise(order))]
    saved, begins = [0], [0]
    for end in range(1, len(order) + 1):
        best, begin, shared = saved[end - 1], end - 1, len(rows[order[end - 1]])
        for first in range(end - 2, max(-1, end - 1 - most), -1):
            shared = min(shared, common[first + 1])
            if shared < WORTH:
                break
            saving = saved[first] + (end - 1 - first) * shared - WORTH
            if saving > best:
                best, begin = saving, first
        saved.append(best)
        begins.append(begin)
    found, end = [], len(order)
    while end:
        begin = begins[end]
        shared = min([len(rows[order[begin]]), *common[begin + 1 : end]])
        found.append(Group(shared=shared, rows=tuple(order[begin:end])))
        end = begin
    return found
