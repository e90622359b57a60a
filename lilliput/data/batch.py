"""Training batches and the cursor that says how far the data has been read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

EXTRAS = "extras/"


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of tokens; B rows, T tokens in a row. A row of pairs has one more axis, [B, 2, T]: a pair is never split."""

    tokens: torch.Tensor
    """[B, T] int64."""
    weight: torch.Tensor
    """[B, T] float32: how much a token counts in the loss where it is a target."""
    document_ids: torch.Tensor
    """[B, T] int32: number of the token's document within its row, from 0 and never falling."""
    row: torch.Tensor = None  # type: ignore[assignment]
    """[B] int64: number of the row within its step, over all micro-batches and ranks; from 0 by default."""
    extras: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Further tensors by name, rows first: log-probabilities of a reference model, a teacher's logits."""

    def __post_init__(self) -> None:
        if self.row is None:
            object.__setattr__(self, "row", torch.arange(len(self.tokens), device=self.tokens.device))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return every tensor by name, those of `extras` as `extras/<name>`."""
        own = {"tokens": self.tokens, "weight": self.weight, "document_ids": self.document_ids, "row": self.row}
        return own | {f"{EXTRAS}{name}": value for name, value in self.extras.items()}

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        """Return the batch with every tensor changed."""
        changed = {name: change(value) for name, value in self.tensors().items()}
        extras = {name: changed.pop(f"{EXTRAS}{name}") for name in self.extras}
        return Batch(**changed, extras=extras)

    def to(self, device: torch.device | str) -> "Batch":
        """Return the same batch on another device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned_for(self, device: torch.device | str) -> "Batch":
        """Return the same batch, still on the CPU, where a copy to the device does not make the host wait for it."""
        return self.map(torch.Tensor.pin_memory) if torch.device(device).type == "cuda" else self

    def copy_(self, other: "Batch") -> None:
        """Overwrite every tensor with the one of another batch of the same shapes."""
        others = other.tensors()
        for name, tensor in self.tensors().items():
            tensor.copy_(others[name], non_blocking=True)

    @property
    def shapes(self) -> tuple[tuple[str, torch.Size], ...]:
        """Names and shapes of its tensors: batches with equal ones can take each other's place in a CUDA graph."""
        return tuple((name, tensor.shape) for name, tensor in self.tensors().items())


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


@dataclass(frozen=True, kw_only=True)
class RowSource:
    """Origin of a training row."""

    corpus: str
    epoch: int
    """Number of the pass over the corpus that the row begins in, from 0."""
    row: int | None = None
    """Index of the row among the packed ones of the corpus; None where rows are cut from a stream."""
    documents: tuple[int, ...] = ()
    """Numbers of the documents that it has tokens of, in order, from 0 in the order in which the training side was
    written, -1 for what fills up the row; empty where packing has mixed them."""


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
