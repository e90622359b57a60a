"""Weights of the tokens after a position as its targets. All weights of a position add up to 1, or to less where a
target has no prefix token.

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
from lilliput.data.batch import Batch
from lilliput.data.prefix_tokens import NO_PREFIX, PREFIX_TOKENS
from lilliput.objectives.bags import bags
from lilliput.objectives.fading import check_fading, fraction_left
from lilliput.objectives.soft_targets import SoftTargets, soft_targets_of


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
        check_fading("MultiToken", self.weight, self.until)

    def weight_at(self, progress: Tensor) -> Tensor:
        """Return the weight at a fraction of the phase."""
        return self.weight * fraction_left(self.until, progress)


@dataclass(frozen=True, kw_only=True)
class PrefixToken:
    """Prefix-token prediction: each target's prefix token, which the same logits are charged for.

    It is the longest other token that the target's bytes begin with; a target without one is charged alone. From
    modded-nanogpt (record 88, pull request 337), where it falls to nothing as `MultiToken` does. The prefix tokens come
    with the data: `Mixture(prefix_tokens=True)`.
    """

    weight: float = 0.25
    """Weight of a prefix token, when the phase begins, of that of its target."""
    until: float = 1.0
    """The fraction of the phase after which it weighs nothing."""

    def __post_init__(self) -> None:
        check_fading("PrefixToken", self.weight, self.until)

    def weight_at(self, progress: Tensor) -> Tensor:
        """Return the weight at a fraction of the phase."""
        return self.weight * fraction_left(self.until, progress)


def prefixes_of(batch: Batch) -> Tensor:
    """Return the prefix token of each token of a batch, [B, T]; see `lilliput.data.prefix_tokens`.

    Raises:
        RecipeError: the data brings none.
    """
    if PREFIX_TOKENS not in batch.extras:
        raise RecipeError(
            "the data does not have the prefix tokens of a row",
            where="NextToken(prefix=PrefixToken(...))",
            hint="read it so: Mixture(prefix_tokens=True, ...)",
        )
    return batch.extras[PREFIX_TOKENS]


class TargetShares:
    """Weights of a position's targets on a device: those right after it, further ones, prefix tokens, a teacher's."""

    def __init__(
        self,
        bag: int,
        targets: Targets,
        further: MultiToken | None,
        prefix: PrefixToken | None,
        soft: SoftTargets | None,
        device: torch.device,
    ):
        """Lay out the weights.

        Args:
            bag: tokens of a position.
            targets: right after it.
            further: after those; None for none.
            prefix: of those right after it; None for none.
            soft: a teacher's in the place of the next one; None for none.
            device: of the model.
        """
        near = targets.shares(bag)
        self._bag, self._has_prefixes, self._soft = bag, prefix is not None, soft
        fading: list[tuple[MultiToken | PrefixToken | SoftTargets, list[float]]] = []
        if further is not None:
            fading.append((further, further.count * [len(near) / further.count]))
        if prefix is not None:
            fading.append((prefix, near))
        if soft is not None:
            fading.append((soft, [1.0] * soft.count))
        # No buffers: they follow from the spec, and whatever checkpoints lack is built from a phase's first weights.
        self._near = torch.tensor(near, device=device)
        self._fading = [(spec, torch.tensor(shares, device=device)) for spec, shares in fading]

    def weighted_targets(
        self, batch: Batch, targets: Tensor, weight: Tensor, progress: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | float]:
        """Return all targets of positions, the weight of each, and what weights were divided by.

        The tokens after a position come first, then prefix tokens, then a teacher's. What weights were divided by is
        their sum at a position, as if each of its targets had a prefix token. Targets and weights are [B, L, A].

        Args:
            batch: of the rows.
            targets: the tokens after each position, further ones included.
            weight: that the data gives each of them.
            progress: the fraction of the phase, a scalar on the device.

        Raises:
            RecipeError: the data brings no prefix tokens, or no predictions, and they are charged.
        """
        near, true = len(self._near), targets
        if self._has_prefixes:
            prefixes = bags(prefixes_of(batch), self._bag, targets.shape[-1])[1][..., :near]
            targets = torch.cat([targets, prefixes.clamp(min=0)], dim=-1)
            weight = torch.cat([weight, weight[..., :near] * (prefixes != NO_PREFIX)], dim=-1)
        if self._soft is not None:
            tokens, shares_of_true = soft_targets_of(batch, self._soft, true[..., 0])
            targets = torch.cat([targets, tokens], dim=-1)
            weight = torch.cat([weight, weight[..., :1] * shares_of_true], dim=-1)
        shares, whole = self._at(progress)
        return targets, weight * shares / near, whole

    def _at(self, progress: Tensor) -> tuple[Tensor, Tensor | float]:
        """The share of each target [A], and what they were divided by to add up to the number of near ones."""
        if not self._fading:
            return self._near, 1.0
        weights = [spec.weight_at(progress) for spec, _ in self._fading]
        whole = sum(weights[1:], 1 + weights[0])
        faded = [weight * shares for weight, (_, shares) in zip(weights, self._fading, strict=True)]
        return torch.cat([self._near, *faded]) / whole, whole
