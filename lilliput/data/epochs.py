"""A stream without an end: pass after pass over the same tokens, the pieces of each in an order of its own.

Position by position it is a function of the seed: nothing has to be kept but how many tokens were read. The order is
computed where it is needed; of a pass, the position of every 4,096th piece is remembered as far as it was looked for.
"""

from bisect import bisect_right
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from lilliput.data.permutation import Permutation
from lilliput.data.token_stream import TokenStream

_CHUNK = 4_096
"""Pieces whose positions are computed together."""


class EpochStream:
    """The passes over a stream.

    Args:
        stream: with its pieces.
        key: decides, with the number of the pass, the order of its pieces.
    """

    def __init__(self, stream: TokenStream, key: str):
        self._stream, self._key = stream, key
        self._pass = lru_cache(maxsize=2)(self._new_pass)

    def __len__(self) -> int:
        """Tokens of one pass."""
        return len(self._stream)

    def read(self, position: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens from a position on; position // len(self) is the pass.

        Returns:
            The tokens [count] int64, and which of them begin a piece [count] bool.
        """
        tokens, begins = [], []
        while count:
            number, offset = divmod(position, len(self))
            found, starts = self._pass(number).read(offset, count)
            tokens.append(found)
            begins.append(starts)
            position, count = position + len(found), count - len(found)
        return np.concatenate(tokens), np.concatenate(begins)

    def documents(self, position: int, count: int) -> list[int]:
        """Numbers of the documents that the tokens from a position on are of, one a piece, in order.

        They count from 0 in the order of the stream, whatever the order of the pass.
        """
        found: list[int] = []
        while count:
            number, offset = divmod(position, len(self))
            begins, read = self._pass(number).pieces(offset, count)
            found += self._stream.document_numbers(begins).tolist()
            position, count = position + read, count - read
        return found

    def _new_pass(self, number: int) -> "_Epoch":
        return _Epoch(self._stream, Permutation(self._stream.piece_count, f"{self._key}\0{number}"))


class _Chunk(NamedTuple):
    """Pieces that follow each other in a pass."""

    begins: np.ndarray
    """Number of tokens of the chunk before each piece, [N] int64."""
    sources: np.ndarray
    """Position of each piece in the stream, [N] int64."""
    tokens: int


class _Epoch:
    def __init__(self, stream: TokenStream, order: Permutation):
        self._stream, self._order = stream, order
        self._begins = [0]
        """Positions in the pass at which chunks begin, as far as they were looked for."""
        self._chunk = lru_cache(maxsize=2)(self._new_chunk)

    def read(self, offset: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """At most `count` tokens of one chunk, from a position of the pass on, and which of them begin a piece."""
        chunk, offset, after, first, last = self._found(offset, count)
        begun = chunk.begins[first + 1 : last + 1]
        sizes = np.diff(begun, prepend=offset, append=after)
        sources = chunk.sources[first : last + 1].copy()
        sources[0] += offset - chunk.begins[first]
        starts = np.zeros(after - offset, dtype=bool)
        starts[begun - offset] = True
        starts[0] = chunk.begins[first] == offset
        return self._stream.take(sources, sizes), starts

    def pieces(self, offset: int, count: int) -> tuple[np.ndarray, int]:
        """The positions in the stream at which the pieces of the same tokens begin, and how many tokens these are."""
        chunk, offset, after, first, last = self._found(offset, count)
        return chunk.sources[first : last + 1], after - offset

    def _found(self, offset: int, count: int) -> tuple[_Chunk, int, int, int, int]:
        """The chunk of a position of the pass, the ends of at most `count` tokens in it, and their pieces' indices."""
        while self._begins[-1] <= offset:
            self._begins.append(self._begins[-1] + self._chunk(len(self._begins) - 1).tokens)
        number = bisect_right(self._begins, offset) - 1
        chunk, offset = self._chunk(number), offset - self._begins[number]
        after = min(offset + count, chunk.tokens)
        first, last = np.searchsorted(chunk.begins, (offset, after - 1), side="right") - 1
        return chunk, offset, after, int(first), int(last)

    def _new_chunk(self, number: int) -> _Chunk:
        positions = np.arange(number * _CHUNK, min((number + 1) * _CHUNK, len(self._order)))
        sources, sizes = self._stream.pieces(self._order(positions))
        begins = np.cumsum(sizes) - sizes
        return _Chunk(begins, sources, int(sizes.sum()))
