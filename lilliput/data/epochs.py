"""A stream without an end: pass after pass over the same tokens, the pieces of each in an order of its own.

Position by position it is a function of the seed: nothing has to be kept but how many tokens were read. The order is
computed where it is needed; of a pass, the position of every 4,096th piece is remembered as far as it was looked for.
"""

from bisect import bisect_right
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from lilliput.data.packed_runs import FILLER, packed_runs
from lilliput.data.permutation import Permutation
from lilliput.data.token_stream import TokenStream

_CHUNK = 4_096
"""Pieces whose positions are computed together."""


class RowFill(NamedTuple):
    """Contents of packed rows."""

    filler: float
    """Share of their tokens that only fills them up."""
    documents_cut: int
    """Documents that are longer than a row."""


class EpochStream:
    """The passes over a stream.

    Args:
        stream: with its pieces.
        key: decides, with the number of the pass, the order of its pieces.
        row: tokens of the rows that pieces are packed into, differently in each pass; None for pieces end to end.
    """

    def __init__(self, stream: TokenStream, key: str, row: int | None = None):
        self._stream, self._key, self._row = stream, key, row
        self._pass = lru_cache(maxsize=2)(self._new_pass)
        self._ends: list[int] = []
        """Position after each pass, as far as they are known."""

    def __len__(self) -> int:
        """Tokens of one pass, what fills up rows aside."""
        return len(self._stream)

    def read(self, position: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The tokens from a position on.

        Returns:
            The tokens [count] int64, which of them begin a piece, or what fills up a row [count] bool, and which of
            them only fill up a row [count] bool; these are the end token.
        """
        found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        while count:
            number, offset = self._place(position)
            found.append(self._pass(number).read(offset, count))
            size = len(found[-1][0])
            position, count = position + size, count - size
        tokens, begins, fills = map(np.concatenate, zip(*found, strict=True))
        return tokens, begins, fills

    def positions(self, position: int, count: int) -> np.ndarray:
        """Return where in the stream the tokens that `read` returns are, [count] int64; `FILLER` for what fills up."""
        found: list[np.ndarray] = []
        while count:
            number, offset = self._place(position)
            found.append(self._pass(number).positions(offset, count))
            position, count = position + len(found[-1]), count - len(found[-1])
        return np.concatenate(found)

    def documents(self, position: int, count: int) -> list[int]:
        """Numbers of the documents that the tokens from a position on are of, one a piece, in order.

        They count from 0 in the order of the stream, whatever the order of the pass; `FILLER` is what fills up a row.
        """
        found: list[int] = []
        while count:
            number, offset = self._place(position)
            begins, read = self._pass(number).pieces(offset, count)
            found += np.where(begins == FILLER, FILLER, self._stream.document_numbers(begins)).tolist()
            position, count = position + read, count - read
        return found

    def pass_of(self, position: int) -> int:
        """Return the number of the pass that a position is in."""
        return self._place(position)[0]

    def row_fill(self) -> "RowFill":
        """Return what fills the rows of the first pass, for which the whole pass is packed."""
        assert self._row is not None
        filler, tokens = self._pass(0).filler()
        sizes = np.diff(self._stream.document_begins, append=len(self._stream))
        return RowFill(filler=filler / tokens, documents_cut=int((sizes > self._row).sum()))

    def _place(self, position: int) -> tuple[int, int]:
        """The pass of a position, and how far into it that is."""
        if self._row is None:
            return divmod(position, len(self))
        while not self._ends or self._ends[-1] <= position:
            begin = self._ends[-1] if self._ends else 0
            one = self._pass(len(self._ends))
            if one.holds(position - begin):
                return len(self._ends), position - begin
            self._ends.append(begin + one.tokens)
        number = bisect_right(self._ends, position)
        return number, position - (self._ends[number - 1] if number else 0)

    def _new_pass(self, number: int) -> "_Epoch":
        key = f"{self._key}\0{number}"
        return _Epoch(self._stream, Permutation(self._stream.piece_count, key), key, self._row)


class _Chunk(NamedTuple):
    """Pieces that follow each other in a pass."""

    begins: np.ndarray
    """Number of tokens of the chunk before each piece, [N] int64."""
    sources: np.ndarray
    """Position of each piece in the stream, [N] int64; `FILLER` where rows are filled up."""
    tokens: int


class _Epoch:
    def __init__(self, stream: TokenStream, order: Permutation, key: str, row: int | None):
        self._stream, self._order, self._key, self._row = stream, order, key, row
        self._begins = [0]
        """Positions in the pass at which chunks begin, as far as they are computed."""
        self._chunk = lru_cache(maxsize=2)(self._new_chunk)

    def holds(self, offset: int) -> bool:
        """Return whether a position is in the pass; if not, `tokens` is known."""
        while self._begins[-1] <= offset and len(self._begins) <= -(-len(self._order) // _CHUNK):
            self._begins.append(self._begins[-1] + self._chunk(len(self._begins) - 1).tokens)
        return offset < self._begins[-1]

    @property
    def tokens(self) -> int:
        """Tokens of the pass, as far as it is computed."""
        return self._begins[-1]

    def filler(self) -> tuple[int, int]:
        """Return the tokens of the pass that only fill up rows, and all of its tokens."""
        filler, after = 0, self._stream.piece_count
        for number in range(-(-after // _CHUNK)):
            chunk = self._chunk(number)
            sizes = np.diff(chunk.begins, append=chunk.tokens)
            filler += int(sizes[chunk.sources == FILLER].sum())
        self.holds(np.iinfo(np.int64).max)
        return filler, self.tokens

    def read(self, offset: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """At most `count` tokens of one chunk from a position of the pass on, as `EpochStream.read` has them."""
        chunk, offset, after, first, last = self._found(offset, count)
        begun = chunk.begins[first + 1 : last + 1]
        sources, sizes = _runs(chunk, offset, after, first, last)
        starts = np.zeros(after - offset, dtype=bool)
        starts[begun - offset] = True
        starts[0] = chunk.begins[first] == offset
        is_filler = chunk.sources[first : last + 1] == FILLER
        if not is_filler.any():
            return self._stream.take(sources, sizes), starts, np.zeros_like(starts)
        fills = np.repeat(is_filler, sizes)
        tokens = np.full(len(fills), self._stream.end, dtype=np.int64)
        if not is_filler.all():
            tokens[~fills] = self._stream.take(sources[~is_filler], sizes[~is_filler])
        return tokens, starts, fills

    def positions(self, offset: int, count: int) -> np.ndarray:
        """The positions of the same tokens in the stream."""
        chunk, offset, after, first, last = self._found(offset, count)
        sources, sizes = _runs(chunk, offset, after, first, last)
        firsts = np.repeat(sources - (np.cumsum(sizes) - sizes), sizes)
        is_filler = np.repeat(chunk.sources[first : last + 1] == FILLER, sizes)
        return np.where(is_filler, FILLER, np.arange(after - offset) + firsts)

    def pieces(self, offset: int, count: int) -> tuple[np.ndarray, int]:
        """The positions in the stream at which the pieces of the same tokens begin, and how many tokens these are."""
        chunk, offset, after, first, last = self._found(offset, count)
        return chunk.sources[first : last + 1], after - offset

    def _found(self, offset: int, count: int) -> tuple[_Chunk, int, int, int, int]:
        """The chunk of a position of the pass, the ends of at most `count` tokens in it, and their pieces' indices."""
        assert self.holds(offset), "a position of another pass"
        number = bisect_right(self._begins, offset) - 1
        chunk, offset = self._chunk(number), offset - self._begins[number]
        after = min(offset + count, chunk.tokens)
        first, last = np.searchsorted(chunk.begins, (offset, after - 1), side="right") - 1
        return chunk, offset, after, int(first), int(last)

    def _new_chunk(self, number: int) -> _Chunk:
        positions = np.arange(number * _CHUNK, min((number + 1) * _CHUNK, len(self._order)))
        sources, sizes = self._stream.pieces(self._order(positions))
        if self._row is not None:
            sources, sizes = packed_runs(sources, sizes, self._row, f"{self._key}\0{number}")
        begins = np.cumsum(sizes) - sizes
        return _Chunk(begins, sources, int(sizes.sum()))


def _runs(chunk: _Chunk, offset: int, after: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions in the stream and sizes of the pieces `first` to `last`, cut to the tokens `offset` to `after`."""
    sizes = np.diff(chunk.begins[first + 1 : last + 1], prepend=offset, append=after)
    sources = chunk.sources[first : last + 1].copy()
    sources[0] += offset - chunk.begins[first]
    return sources, sizes
