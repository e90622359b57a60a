"""Random tokens in place of a corpus: what a step costs hardly depends on the text."""

from collections.abc import Callable
from typing import Any

import torch

from lilliput.data.batch import Batch, Cursor, document_ids_of
from lilliput.train.phase import Phase

AsRead = Callable[[Batch], Batch]
"""Changes rows of random tokens into rows as data brings them: with extras, in pairs, ..."""
DOCUMENT = 700
"""Tokens of a document on average; attention does not look beyond one."""


class RandomRows:
    """A reader of random tokens in documents of random lengths, of which the same batch is read again and again."""

    tokens_available = 2**62

    def __init__(
        self,
        vocab: int,
        *,
        document: int | None = DOCUMENT,
        weight: float = 1.0,
        as_read: AsRead = lambda batch: batch,
    ):
        """Draw rows of random tokens.

        Args:
            vocab: number of ids, of which 0 begins a document.
            document: its tokens; None for one document a row.
            weight: the share of target tokens.
            as_read: of the data, see `as_read`.
        """
        self._vocab, self._document, self._weight, self._as_read = vocab, document, weight, as_read
        self._batches: dict[tuple[int, int], Batch] = {}

    def read(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> tuple[Batch, Cursor]:
        if (rows, length) not in self._batches:
            self._batches[rows, length] = self._batch(rows, length)
        return self._batches[rows, length], cursor

    def skip(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> Cursor:
        return cursor

    def _batch(self, rows: int, length: int) -> Batch:
        draw = torch.Generator().manual_seed(0)
        tokens = torch.randint(1, self._vocab, (rows, length), generator=draw)
        if self._document is not None:
            tokens[torch.rand(rows, length, generator=draw) < 1 / self._document] = 0
        weight = (torch.rand(rows, length, generator=draw) < self._weight).float()
        document_ids = torch.from_numpy(document_ids_of(tokens.numpy(), end=0))
        return self._as_read(Batch(tokens=tokens, weight=weight, document_ids=document_ids))


def as_read(phase: Phase) -> AsRead:
    """Return what changes random rows into rows as the data of a phase brings them: its `synthetic`, where it has one.

    Its shapes must follow from those of the rows.
    """
    return getattr(phase.data, "synthetic", lambda batch: batch)


def kind_of_rows(phase: Phase) -> Any:
    """Return what tells rows of the data of a phase from those of others in cost, as a JSON value."""
    empty = torch.zeros(1, 64, dtype=torch.int64)
    batch = as_read(phase)(Batch(tokens=empty, weight=torch.zeros(1, 64), document_ids=empty.int()))
    return [[name, list(shape)] for name, shape in batch.shapes]
