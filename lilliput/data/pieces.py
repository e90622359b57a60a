"""What is put in another order for each pass: the pieces of a stream of documents.

A piece is a document; one of more than `PIECE` tokens is several, as equal as can be, so that few long texts mix too.
"""

from collections.abc import Iterable, Iterator

import numpy as np

PIECE = 8_192
"""Several rows of the usual length, so that next to no token loses what came before it; few steps of the usual size."""


def piece_begins(blocks: Iterable[np.ndarray], end: int) -> Iterator[np.ndarray]:
    """Where the pieces of a stream begin.

    Args:
        blocks: the tokens of the stream, [N] each, in order; the first one of all is `end`.
        end: the token that begins every document.

    Yields:
        Positions, int64, ascending; all of them together are those of the stream.
    """
    position, begun = 0, np.empty(0, dtype=np.int64)  # the document whose end is not found yet, if there is one
    for block in blocks:
        begins = np.concatenate((begun, np.flatnonzero(block == end) + position))
        position += len(block)
        yield _cut(begins[:-1], np.diff(begins))
        begun = begins[-1:]
    yield _cut(begun, position - begun)


def _cut(begins: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Where the pieces of documents begin that begin here and have so many tokens."""
    counts = -(-sizes // PIECE)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # of each piece in its document
    return np.repeat(begins, counts) + number * np.repeat(sizes, counts) // np.repeat(counts, counts)
