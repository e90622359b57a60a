"""Rows of one length that hold items whole, several documents side by side, with the targets among their tokens marked.

A side is three `.bin` files of the layout in `token_files.py`, each [rows, length]: tokens (uint16 or uint32), weight
(uint8, 1 for a target) and document_ids (uint16, number of the document in the row). An item is one document or more,
which lie in one row. What a row has left over is the end token at weight 0, a document of its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import torch
from tokenizers import Tokenizer

from lilliput.base.errors import DataError
from lilliput.base.hash_cache import HashCache
from lilliput.data.batch import Batch, Cursor, RowSource
from lilliput.data.packing import pack
from lilliput.data.token_files import SIDES, Side, counted, header, in_bytes, open_index

IdsAndMask = tuple[Sequence[int], Sequence[int]]
"""Ids of a document, and 1 for each that is a target."""
ARRAYS = ("tokens", "weight", "document_ids")
WINDOW = 32_768
"""Items packed together: enough to fill rows well, few enough to hold in memory."""


class RowWriter:
    """The three files of one side; an index has the `dtype`, `tokenizer`, `length` and `end`."""

    def __init__(self, side: Side, folder: Path, index: Mapping[str, Any]):
        self.rows = self.most_items = 0
        """Rows written, and the most items that one of them has."""
        self._side, self._folder, self._index, self._length = side, folder, index, index["length"]
        self._window: list[Sequence[IdsAndMask]] = []
        self._files: list[BinaryIO] = []

    def __enter__(self) -> Self:
        for array, dtype in zip(ARRAYS, _dtypes(self._index), strict=True):
            self._files.append(open(self._folder / file_name(self._side, array), "wb"))
            self._files[-1].write(header(dtype, self._index["tokenizer"]))
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._pack_window()
        for file in self._files:
            file.close()

    def add(self, *documents: IdsAndMask) -> None:
        """Take an item, which has room in a row."""
        self._window.append(documents)
        if len(self._window) == WINDOW:
            self._pack_window()

    def _pack_window(self) -> None:
        for row in pack([sum(len(ids) for ids, _ in item) for item in self._window], self._length):
            documents = [document for place in row for document in self._window[place]]
            tokens = np.full(self._length, self._index["end"], dtype=np.int64)
            weight = np.zeros(self._length, dtype=np.int64)
            document_ids = np.full(self._length, len(documents), dtype=np.int64)
            first = 0
            for number, (ids, mask) in enumerate(documents):
                after = first + len(ids)
                tokens[first:after], weight[first:after], document_ids[first:after] = ids, mask, number
                first = after
            for file, numbers, dtype in zip(
                self._files, (tokens, weight, document_ids), _dtypes(self._index), strict=True
            ):
                file.write(in_bytes(numbers, dtype))
            self.rows, self.most_items = self.rows + 1, max(self.most_items, len(row))
        self._window.clear()


class PackedRows:
    """A folder of such files, verified and open for reading; token files of a format inherit it."""

    def __init__(
        self,
        folder: Path,
        kind: str,
        tokenizer_hash: str | None,
        verified: HashCache | None,
        lengths: Callable[[dict[str, Any]], dict[str, int]],
    ):
        """Open a folder.

        Args:
            folder: the folder.
            kind: of its index.
            tokenizer_hash: the tokenizer that the ids must be of; None accepts any.
            verified: knows which files need not be hashed again.
            lengths: bytes of the numbers of every file by an index; see `open_index`.

        Raises:
            DataError: a file is missing or differs from the index, or the ids are of another tokenizer.
        """
        self.folder = folder
        self.tokenizer: Tokenizer | None = None
        """Whose ids these are, where whoever opened them has told."""
        token_folder = open_index(folder, kind, tokenizer_hash, verified, lengths)
        self.index = token_folder.index
        self.length: int = self.index["length"]
        dtypes = dict(zip(ARRAYS, _dtypes(self.index), strict=True))
        below = dict(zip(ARRAYS, (self.index["vocab"], 2, 2**16), strict=True))
        self._arrays = {
            (side, array): token_folder.numbers(file_name(side, array), dtypes[array], below[array])
            for side in SIDES
            for array in ARRAYS
            if self.count(side)
        }

    def count(self, side: Side) -> int:
        """Number of rows of a side."""
        return self.index["sides"][side]["rows"]

    def take(self, side: Side, indices: Sequence[int] | np.ndarray) -> Batch:
        """The rows at these indices, each below `count(side)`."""
        tokens, weight, document_ids = (self._arrays[side, array].rows(indices, self.length) for array in ARRAYS)
        return Batch(
            tokens=torch.from_numpy(tokens.astype(np.int64)),
            weight=torch.from_numpy(weight.astype(np.float32)),
            document_ids=torch.from_numpy(document_ids.astype(np.int32)),
        )

    def batches(self, side: Side, size: int) -> Iterator[Batch]:
        """Yield all rows of a side once, in order, up to `size` at a time; of the files no page stays in memory."""
        for start in range(0, self.count(side), size):
            yield self.take(side, range(start, min(start + size, self.count(side))))
            for array in ARRAYS:
                self._arrays[side, array].release_pages()

    def heldout_batches(self, length: int, positions: int, rows: Callable[[int], int]) -> Iterator[Batch]:
        """The first held-out rows, as long as they were packed; see `TokenFiles`."""
        first, size = range(min(self.count("heldout"), max(1, positions // self.length))), rows(self.length)
        return (self.take("heldout", list(first[start : start + size])) for start in range(0, len(first), size))


class PackedReader:
    """The train rows of packed items, every pass in another order."""

    def __init__(self, name: str, rows: PackedRows, seed: int, noun: str):
        """Read rows.

        Args:
            name: of the corpus.
            rows: its token files.
            seed: decides, with the number of the pass, the order of the rows.
            noun: of the items, for errors.
        """
        self._name, self._rows, self._seed, self._noun = name, rows, seed, noun
        self._order = lru_cache(maxsize=2)(self._find_order)

    @property
    def tokens_available(self) -> int:
        """Tokens of all rows, with what fills them up."""
        return self._rows.count("train") * self._rows.length

    def read(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> tuple[Batch, Cursor]:
        """The next rows and the cursor after them, as `MixtureReader.read`; the end of one pass may share a batch with
        the beginning of the next.

        Args:
            cursor: where to begin.
            rows: B, rows of the batch.
            length: T, tokens of a row, as they were packed.
            overlap: for the sake of the common signature: items are whole, so these rows have nothing to share.

        Raises:
            DataError: rows of another length are stored, or the cursor is of another source.
        """
        after = self.skip(cursor, rows, length)
        return self._rows.take("train", [index for _, index in self._indices(cursor, rows)]), after

    def skip(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> Cursor:
        """The cursor after the rows that `read` would return; arguments as there.

        Raises:
            DataError: rows of another length are stored, or the cursor is of another source.
        """
        if length != self._rows.length:
            raise DataError(
                f"the {self._noun} are packed into rows of {self._rows.length} tokens, not of {length}",
                where=str(self._rows.folder),
                hint='write them again with "lilliput run RECIPE"',
            )
        unknown = sorted(name for name, _ in cursor.positions if name != self._name)
        if unknown:
            raise DataError(
                f"the cursor is in {', '.join(unknown)}, not in {self._name}",
                where="the data position of a checkpoint",
                hint="resume with the corpus that the run started with",
            )
        return Cursor(positions=((self._name, cursor.of(self._name) + rows),))

    def sources(self, cursor: Cursor, rows: int, length: int = 0, overlap: int = 1) -> list[RowSource]:
        """The origins of the rows that `read` returns for the same arguments."""
        return [RowSource(corpus=self._name, epoch=epoch, row=row) for epoch, row in self._indices(cursor, rows)]

    def _indices(self, cursor: Cursor, rows: int) -> list[tuple[int, int]]:
        """The pass and the index of each of the next rows."""
        start, count = cursor.of(self._name), self._rows.count("train")
        passed = (divmod(row, count) for row in range(start, start + rows))
        return [(epoch, int(self._order(epoch)[place])) for epoch, place in passed]

    def _find_order(self, epoch: int) -> np.ndarray:
        # RandomState: NumPy promises its numbers for ever; those of a Generator may change with a version.
        return np.random.RandomState([self._seed, epoch]).permutation(self._rows.count("train"))


def byte_lengths(index: Mapping[str, Any], counts: Sequence[str]) -> dict[str, int]:
    """Return the bytes of the numbers of each `.bin` file by an index whose sides have these counts; see `open_index`.

    Raises:
        ValueError: a count or the length is no whole number, or rows have no tokens.
    """
    lengths = {}
    for side in SIDES:
        rows, *_ = (counted(index["sides"][side][key]) for key in ("rows", *counts))
        numbers = rows * counted(index["length"])
        for array, dtype in zip(ARRAYS, _dtypes(index), strict=True):
            lengths[file_name(side, array)] = numbers * np.dtype(dtype).itemsize
    if not index["length"]:
        raise ValueError(f"rows of {index['length']} tokens")
    return lengths


def file_name(side: str, array: str) -> str:
    """Name of the file of an array of a side."""
    return f"{side}-{array}.bin"


def _dtypes(index: Mapping[str, Any]) -> tuple[str, str, str]:
    return index["dtype"], "uint8", "uint16"
