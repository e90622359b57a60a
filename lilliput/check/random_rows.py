"""Rows of random tokens in documents, a function of a cursor: what a check trains on, whatever the recipe reads."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lilliput.check.result import CheckSkipped
from lilliput.data.batch import Batch, Cursor, document_ids_of

NAME = "rows"
"""Name of the only source."""
DOCUMENT = 12
"""Positions of a document on average."""


class NumberedRows:
    """A reader whose row n is a function of n; some tokens are no targets, as in conversations."""

    tokens_available = 2**62

    def __init__(self, vocab: int, spoiled: int | None = None):
        """Draw rows of `vocab` ids, of which 0 begins a document; the weights of the `spoiled` row are NaN."""
        self._vocab, self._spoiled = vocab, spoiled

    def read(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> tuple[Batch, Cursor]:
        first = cursor.of(NAME)
        made = [self._row(first + index, length, DOCUMENT * overlap) for index in range(rows)]
        tokens, weight = (torch.stack(parts) for parts in zip(*made, strict=True))
        document_ids = torch.from_numpy(document_ids_of(tokens.numpy(), end=0))
        batch = Batch(tokens=tokens, weight=weight, document_ids=document_ids, extras=NoExtras())
        return batch, self.skip(cursor, rows, length)

    def skip(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> Cursor:
        return Cursor(positions=((NAME, cursor.of(NAME) + rows),))

    def _row(self, number: int, length: int, document: int) -> tuple[Tensor, Tensor]:
        draw = torch.Generator().manual_seed(number)
        tokens = torch.randint(1, self._vocab, (length,), generator=draw)
        tokens[torch.rand(length, generator=draw) < 1 / document] = 0
        weight = (torch.rand(length, generator=draw) < 0.8).float()
        return tokens, torch.full_like(weight, torch.nan) if number == self._spoiled else weight


class NoExtras(Mapping[str, Tensor]):
    """The extras of rows that have none; an objective that asks for one can only be checked on its own data."""

    def __getitem__(self, name: str) -> Tensor:
        raise CheckSkipped(f"it reads batch.extras[{name!r}], which random rows do not have")

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def split(batch: Batch, sizes: list[int]) -> list[Batch]:
    """Return the micro-batches of a step, each row with the number that it has in the step."""
    begins = [sum(sizes[:index]) for index in range(len(sizes))]
    return [
        replace(batch.map(lambda one, cut=slice(begin, begin + size): one[cut]), extras=NoExtras())
        for begin, size in zip(begins, sizes, strict=True)
    ]


def batch_of(vocab: int, rows: int, length: int, overlap: int) -> Batch:
    """Return the rows of one step.

    Args:
        vocab: number of ids.
        rows: number of rows.
        length: positions of a row.
        overlap: tokens that a row shares with the next.
    """
    return NumberedRows(vocab).read(Cursor(), rows, length, overlap)[0]
