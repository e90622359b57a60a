"""The tokens of one side of a corpus: its files, joined."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from lilliput.base.errors import DataError
from lilliput.data.token_files import REWRITE, TokenArray

_BEGINS = 1 << 16
"""Pieces whose first tokens are read together."""


class TokenStream:
    """The tokens of one side, end to end, as a circle; `end` begins each document.

    Args:
        parts: the files.
        end: the token.
        begins: of the pieces that passes shuffle (see `pieces.py`); None for a side that is only read in order.
    """

    def __init__(self, parts: list[TokenArray], end: int, begins: TokenArray | None = None):
        self.end = end
        self._parts, self._begins = parts, begins
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, start: int, count: int) -> np.ndarray:
        """`count` tokens from position `start` on, [count] int64; after the last token comes the first."""
        tokens = np.empty(count, dtype=np.int64)
        filled = 0
        while filled < count:
            position = (start + filled) % len(self)
            index = int(np.searchsorted(self._starts, position, side="right")) - 1
            first = position - int(self._starts[index])
            piece = self._parts[index].read(first, first + count - filled)
            tokens[filled : filled + len(piece)] = piece
            filled += len(piece)
        return tokens

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """Yield all tokens once, in order, up to `size` at a time, [N] int64; of the files no page stays in memory."""
        for part in self._parts:
            for first in range(0, len(part), size):
                yield part.read(first, min(first + size, len(part))).astype(np.int64)
                part.release_pages()

    def take(self, begins: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """The tokens of runs, each within a file, one after the other.

        Args:
            begins: where each run begins, [N] int64.
            sizes: tokens of each, [N] int64, at least 1.

        Returns:
            [sizes.sum()] int64.
        """
        parts = np.searchsorted(self._starts, begins, side="right") - 1
        order = np.argsort(parts, kind="stable")  # file after file; then back again
        found = []
        for runs in np.split(order, np.flatnonzero(np.diff(parts[order])) + 1):
            part = parts[runs[0]]
            found.append(self._parts[part].take(_positions(begins[runs] - self._starts[part], sizes[runs])))
        if len(found) == 1:
            return found[0].astype(np.int64)
        firsts = np.empty_like(begins)
        firsts[order] = np.cumsum(sizes[order]) - sizes[order]
        return np.concatenate(found)[_positions(firsts, sizes)].astype(np.int64)

    @property
    def piece_count(self) -> int:
        """Return how many pieces it has."""
        assert self._begins is not None
        return len(self._begins)

    def pieces(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where the pieces of these numbers, at least one, begin and how many tokens they have, [N] int64 each.

        Raises:
            DataError: a piece has no token, or the first one does not begin the stream.
        """
        assert self._begins is not None
        begins = self._begins.take(numbers).astype(np.int64)
        last = numbers == len(self._begins) - 1
        after = self._begins.take(np.where(last, numbers, numbers + 1)).astype(np.int64)
        sizes = np.where(last, len(self), after) - begins
        if sizes.min() < 1 or begins[numbers == 0].any():
            raise DataError(
                f"the pieces of {len(self):,} tokens are not contiguous",
                where=str(self._begins.path),
                hint=REWRITE,
            )
        return begins, sizes

    def document_numbers(self, positions: np.ndarray) -> np.ndarray:
        """Return the numbers of the documents at these positions, from 0, [N] int64."""
        return np.searchsorted(self.document_begins, positions, side="right") - 1

    @cached_property
    def document_begins(self) -> np.ndarray:
        """Positions at which documents begin, [documents] int64: those of pieces that begin with the end token."""
        assert self._begins is not None
        found = []
        for first in range(0, len(self._begins), _BEGINS):
            some = self._begins.read(first, min(first + _BEGINS, len(self._begins))).astype(np.int64)
            found.append(some[self.take(some, np.ones_like(some)) == self.end])
            for part in (*self._parts, self._begins):
                part.release_pages()
        return np.concatenate(found)


def _positions(begins: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Every position of runs, one after the other."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1]) + np.repeat(begins - ends + sizes, sizes)
