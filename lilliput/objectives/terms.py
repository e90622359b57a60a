"""What a position is charged for. Each term maps cross-entropies and log-sum-exps [B, L] to a weighted sum."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Term(Protocol):
    """A term as recipes write it."""

    @property
    def name(self) -> str:
        """By which it is recorded."""
        ...

    @property
    def weight(self) -> float:
        """What its sum is multiplied by."""
        ...

    def __call__(self, loss: Tensor, lse: Tensor, charge: Tensor) -> Tensor:
        """Cross-entropy, log-sum-exp and weight of each position, all [B, L] -> a scalar sum in nats."""
        ...


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """The cross-entropy of the targets."""

    name: str = "cross_entropy"
    weight: float = 1.0

    def __call__(self, loss: Tensor, lse: Tensor, charge: Tensor) -> Tensor:
        return loss.sum()


@dataclass(frozen=True, kw_only=True)
class ZLoss:
    """The squared log-sum-exp of the logits (PaLM, arXiv 2204.02311): keeps them from drifting.

    One that ends after 40% of a phase is a stage of its own, as optimizer, schedule and text go on across stages:

        stages=(
            Stage(share=0.4, objective=NextBag(terms=(CrossEntropy(), ZLoss()))),
            Stage(share=0.6, objective=NextBag()),
        )
    """

    name: str = "z_loss"
    weight: float = 1e-4

    def __call__(self, loss: Tensor, lse: Tensor, charge: Tensor) -> Tensor:
        return (lse.square() * charge).sum()
