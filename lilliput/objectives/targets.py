"""Weights of the tokens after a position as its targets. All weights of a position add up to 1.

The loss charges as many targets as there are for what one costs. A bag of S tokens and the number of its targets are
three methods of token superposition (arXiv 2605.06546):

    NextToken(bag=4)                            read four, predict the next four: both sides
    NextToken(bag=4, targets=Targets(count=1))  read four, predict the next one: inputs alone
    NextToken(targets=Targets(count=4))         read one, predict the next four: outputs alone, without more text
"""

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from lilliput.base.errors import RecipeError
from lilliput.base.spec import check_range


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The tokens right after a position, token i (from 0) with a weight in proportion to 1 / (i + 1)^power."""

    count: int | None = None
    """Number of targets; None for as many as the bag of a position has."""
    power: float = 0.0
    """0 for equal weights; 1 is the power law of token superposition, lower in loss from bags of 8 on."""

    def __post_init__(self) -> None:
        check_range("Targets", 1, inf, count=1 if self.count is None else self.count)
        check_range("Targets", 0, inf, power=self.power)

    def shares(self, bag: int) -> list[float]:
        """Return the weight of each, 1 on average."""
        weights = [(place + 1) ** -self.power for place in range(self.count or bag)]
        return [weight * len(weights) / sum(weights) for weight in weights]


@dataclass(frozen=True, kw_only=True)
class MultiToken:
    """Multi-token prediction: further tokens, after the targets, that the same logits are charged for.

    Their weight falls in a straight line, so that a phase ends as ordinary training.
    """

    count: int = 1
    weight: float = 0.3
    """Weight of all of them together when the phase begins; the targets before them weigh 1."""
    until: float = 1.0
    """The fraction of the phase after which they weigh nothing."""

    def __post_init__(self) -> None:
        check_range("MultiToken", 1, inf, count=self.count)
        check_range("MultiToken", 0, inf, weight=self.weight)
        if not 0 < self.until <= 1:
            raise RecipeError(
                f"until cannot be {self.until}",
                where="MultiToken",
                hint="give a fraction of the phase, above 0 and at most 1",
            )

    def weight_at(self, progress: Tensor) -> Tensor:
        """Return their weight at a fraction of the phase, a scalar on its device."""
        return self.weight * (1 - progress / self.until).clamp(min=0)


class TargetShares:
    """Weights of a position's targets, further ones last, on a device."""

    def __init__(self, bag: int, targets: Targets, further: MultiToken | None, device: torch.device):
        """Lay out the weights.

        Args:
            bag: tokens of a position.
            targets: right after it.
            further: after those; None for none.
            device: of the model.
        """
        shares = targets.shares(bag)
        self._near, self._further = len(shares), further
        if further is not None:
            shares += further.count * [self._near / further.count]
        # No buffer: it follows from the spec, and whatever checkpoints lack is built from a phase's first weights.
        self._shares = torch.tensor(shares, device=device)

    def at(self, progress: Tensor) -> tuple[Tensor, Tensor | float]:
        """Return the weight of each target [A], and what all weights are divided by to add up to A."""
        if self._further is None:
            return self._shares, 1.0
        fallen = self._further.weight_at(progress)
        shares = torch.cat([self._shares[: self._near], self._shares[self._near :] * fallen])
        return shares / (1 + fallen), 1 + fallen
