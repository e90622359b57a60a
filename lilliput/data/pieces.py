"""Pieces of a stream of documents, the unit that is shuffled in each pass.

A piece is a document; one of more than `PIECE` tokens is several, as equal as can be, so that few long texts mix too.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lilliput.data.token_files import header, in_bytes

PIECES = "train-pieces.bin"
POSITION = "uint64"
"""Type of a piece's position."""
PIECE = 8_192
"""Several rows of the usual length, so that next to no token loses what came before it; few steps of the usual size."""


_BLOCK = 1 << 22
"""Tokens in which pieces are looked for at a time."""


def write_pieces(folder: Path, index: dict[str, Any]) -> int:
    """Write where the pieces of the train side of a folder of token files begin; how many there are."""
    dtype = np.dtype(index["dtype"]).newbyteorder("<")
    with open(folder / PIECES, "wb") as file:
        file.write(header(POSITION, index["tokenizer"]))
        head = file.tell()
        files = (folder / one["name"] for one in index["files"] if one.get("side") == "train")
        blocks = (block for path in files for block in _blocks(path, dtype, head))
        for begins in piece_begins(blocks, index["end"]):
            file.write(in_bytes(begins, POSITION))
        count = (file.tell() - head) // np.dtype(POSITION).itemsize
        file.flush()
        os.fsync(file.fileno())
    return count


def _blocks(path: Path, dtype: np.dtype, head: int) -> Iterator[np.ndarray]:
    with open(path, "rb") as file:
        file.seek(head)
        while data := file.read(_BLOCK * dtype.itemsize):
            yield np.frombuffer(data, dtype=dtype)


def piece_begins(blocks: Iterable[np.ndarray], end: int) -> Iterator[np.ndarray]:
    """Yield where the pieces of a stream begin.

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
    """Return where the pieces of documents begin that begin here and have so many tokens."""
    counts = -(-sizes // PIECE)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # of each piece in its document
    return np.repeat(begins, counts) + number * np.repeat(sizes, counts) // np.repeat(counts, counts)
