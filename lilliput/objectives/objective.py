"""The seam between a batch and its loss."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from lilliput.base.files import seed_of
from lilliput.data.batch import Batch
from lilliput.model import LanguageModel


class Losses(NamedTuple):
    """What one micro-batch costs, as shares of the whole step: micro-batches and workers add up."""

    loss: Tensor
    """Scalar to differentiate."""
    terms: dict[str, Tensor]
    """Detached scalars by term, in nats per target token, before each term's weight."""


class Objective(Protocol):
    """An objective as recipes write it."""

    def row_length(self, length: int) -> int:
        """Tokens that a row of `length` positions takes from the data."""
        ...

    @property
    def tokens_per_position(self) -> int:
        """Text tokens one position consumes."""
        ...

    def build(self, model: LanguageModel) -> nn.Module:
        """A module around the model whose forward is (batch, denominator, generator) -> Losses.

        `denominator` is the sum of the target weights of the whole step (all micro-batches, all workers), so that every
        target token counts the same wherever it lies, a number or one in a tensor; `generator` is the only source of
        randomness.
        """
        ...


def target_weight_sum(batch: Batch, tokens_per_position: int) -> float:
    """Sum of the target weights of a micro-batch: every token of every bag but a row's first that is a target."""
    _, weight = bags(batch.weight, tokens_per_position)
    return float((weight * same_document_mask(batch.document_ids, tokens_per_position)).sum())


def step_generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """Randomness of one step, a function of (seed, step) alone, so that a resumed run draws the same."""
    return torch.Generator(device=device).manual_seed(seed_of(f"{seed}/{step}"))


def bags(row: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """[B, (L + 1) S] -> inputs [B, L, S] and targets [B, L, S], one bag later; S = 1 is next-token prediction."""
    cut = row.unflatten(1, (-1, size))
    return cut[:, :-1], cut[:, 1:]


def same_document_mask(document_ids: Tensor, size: int) -> Tensor:
    """Whether a target bag is anybody's, [B, L, 1], from document numbers [B, (L + 1) S].

    A bag that holds the end of one document and the beginning of the next is nobody's target.
    """
    _, documents = bags(document_ids, size)
    return (documents == documents[..., :1]).all(dim=-1, keepdim=True)
