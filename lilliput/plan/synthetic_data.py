"""Random tokens in place of a corpus: what a step costs hardly depends on the text."""

import torch

from lilliput.data.batch import Batch, Cursor, document_ids_of
from lilliput.data.segmentations import repeated
from lilliput.train.phase import Phase

DOCUMENT = 700
"""Tokens of a document on average; attention does not look beyond one."""


class RandomRows:
    """A reader of random tokens in documents of random lengths, of which the same batch is read again and again."""

    tokens_available = 2**62

    def __init__(
        self, vocab: int, *, document: int | None = DOCUMENT, weight: float = 1.0, segmentations: int | None = None
    ):
        """Draw rows of random tokens.

        Args:
            vocab: number of ids, of which 0 begins a document.
            document: its tokens; None for one document a row.
            weight: the share of target tokens.
            segmentations: number of tokenizations that rows bring; None for none.
        """
        self._vocab, self._document, self._weight, self._segmentations = vocab, document, weight, segmentations
        self._batches: dict[tuple[int, int], Batch] = {}

    def read(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> tuple[Batch, Cursor]:
        if (rows, length) not in self._batches:
            self._batches[rows, length] = self._batch(rows, length)
        return self._batches[rows, length], cursor

    def _batch(self, rows: int, length: int) -> Batch:
        draw = torch.Generator().manual_seed(0)
        tokens = torch.randint(1, self._vocab, (rows, length), generator=draw)
        if self._document is not None:
            tokens[torch.rand(rows, length, generator=draw) < 1 / self._document] = 0
        weight = (torch.rand(rows, length, generator=draw) < self._weight).float()
        document_ids = torch.from_numpy(document_ids_of(tokens.numpy(), end=0))
        extras = repeated(tokens, self._segmentations) if self._segmentations else {}
        return Batch(tokens=tokens, weight=weight, document_ids=document_ids, extras=extras)


def segmentations_of(phase: Phase) -> int | None:
    """Return how many tokenizations of a row the data of a phase brings; None where it brings none."""
    found = getattr(phase.data, "segmentations", None)
    return None if found is None else found.count
