"""What a position costs: a sum whose derivatives are known as soon as its log-sum-exp is."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LossCoefficients:
    """cross_entropy * loss + z * charge * lse^2 of a position, where the charge is the sum of its weights.

    Its derivatives are `cross_entropy` by the loss, and 2 z charge lse by the log-sum-exp.
    """

    cross_entropy: float = 0.0
    z: float = 0.0

    def combine(self, loss: Tensor, lse: Tensor, target_weight: Tensor) -> Tensor:
        """The sum over positions of any shape, a scalar in nats."""
        total = self.cross_entropy * loss.sum()
        return total + self.z * (lse.square() * target_weight).sum() if self.z else total
