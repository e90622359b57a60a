"""Terms of the loss. What is trained on is the sum of all, each times its weight."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from lilliput.ops.fused_linear_cross_entropy.reference import LossCoefficients


class Term(Protocol):
    """A term as recipes write it."""

    @property
    def name(self) -> str:
        """By which it is recorded."""
        ...

    @property
    def weight(self) -> float:
        """Its weight in the total."""
        ...

    @property
    def coefficients(self) -> LossCoefficients:
        """Its coefficients at a position, before its weight."""
        ...


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """The cross-entropy of the targets."""

    name: str = "cross_entropy"
    weight: float = 1.0

    @property
    def coefficients(self) -> LossCoefficients:
        return LossCoefficients(cross_entropy=1.0)


@dataclass(frozen=True, kw_only=True)
class ZLoss:
    """The squared log-sum-exp of the logits (PaLM, arXiv 2204.02311): keeps them from drifting.

    One that ends after 40% of a phase is a stage of its own, as optimizer, schedule and text go on across stages:

        stages=(
            Stage(share=0.4, objective=NextToken(terms=(CrossEntropy(), ZLoss()))),
            Stage(share=0.6, objective=NextToken()),
        )
    """

    name: str = "z_loss"
    weight: float = 1e-4

    @property
    def coefficients(self) -> LossCoefficients:
        return LossCoefficients(z=1.0)


def combined_coefficients(terms: Iterable[Term]) -> LossCoefficients:
    """Return the coefficients of all terms together."""
    prices = [(term.weight, term.coefficients) for term in terms]
    return LossCoefficients(
        cross_entropy=sum(weight * price.cross_entropy for weight, price in prices),
        z=sum(weight * price.z for weight, price in prices),
    )
