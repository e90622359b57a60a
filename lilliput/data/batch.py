"""What a model is trained on, and how far the reading of it has come."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of tokens; B rows, T tokens in a row."""

    tokens: torch.Tensor
    """[B, T] int64."""
    weight: torch.Tensor
    """[B, T] float32: how much a token counts in the loss where it is a target."""
    document_ids: torch.Tensor
    """[B, T] int32: number of the token's document within its row, from 0 and never falling."""

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        return Batch(
            tokens=self.tokens.to(device, non_blocking=True),
            weight=self.weight.to(device, non_blocking=True),
            document_ids=self.document_ids.to(device, non_blocking=True),
        )

    def pinned_for(self, device: torch.device | str) -> "Batch":
        """The same batch, still on the CPU, where a copy to the device does not make the host wait for it."""
        if torch.device(device).type != "cuda":
            return self
        return Batch(
            tokens=self.tokens.pin_memory(),
            weight=self.weight.pin_memory(),
            document_ids=self.document_ids.pin_memory(),
        )


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """A position in the training data. `Cursor()` is its start; every read returns the next one."""

    positions: tuple[tuple[str, int], ...] = ()
    """Consumed per source, sorted by name: tokens of a corpus, rows of a chat corpus; passes over the data add up."""

    def of(self, source: str) -> int:
        """The position in one source."""
        return dict(self.positions).get(source, 0)

    def to_plain(self) -> dict[str, int]:
        """JSON values."""
        return dict(self.positions)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Cursor":
        """The inverse of `to_plain`."""
        return cls(positions=tuple(sorted((str(source), int(position)) for source, position in plain.items())))


def document_ids_of(tokens: np.ndarray, end: int) -> np.ndarray:
    """Document numbers of rows of documents: the end token opens the next one, unless it is the row's first token.

    Args:
        tokens: [..., T] ids.
        end: the id that begins every document.

    Returns:
        [..., T] int32, from 0.
    """
    return document_numbers(tokens == end)


def document_numbers(begins: np.ndarray) -> np.ndarray:
    """The same where tokens that begin a document are known, [..., T] bool."""
    return begins.cumsum(axis=-1, dtype=np.int32) - begins[..., :1]
