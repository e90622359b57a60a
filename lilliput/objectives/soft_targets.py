"""Distillation from a teacher's likeliest tokens, whose log-probabilities were computed once."""

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from lilliput.base.errors import RecipeError
from lilliput.base.spec import check_range
from lilliput.data.batch import Batch
from lilliput.data.soft_targets import PROBABILITIES, TOKENS
from lilliput.objectives.fading import check_fading, fraction_left


@dataclass(frozen=True, kw_only=True)
class SoftTargets:
    """Distillation: the likeliest tokens of a teacher at each place, which the same logits are charged for.

        loss = (1 - a) CE(true token) + a sum_k q_k CE(token k),   q_k = p_k / sum_j p_j over the `count` likeliest

    Its second part is the KL divergence from the truncated teacher, but for a constant. `a` falls in a straight line
    from `share` to nothing (arXiv 2410.16215 found falling weights best), so that a phase ends as ordinary training. A
    place without predictions is charged for its true token alone. The predictions come with the data:
    `Mixture(soft_targets="teacher")`, of a `TopKPredictions` named so.
    """

    share: float = 0.9
    """a when the phase begins, below 1."""
    until: float = 1.0
    """The fraction of the phase after which it is 0."""
    count: int = 16
    """Tokens of the teacher, at most as many as were computed."""

    def __post_init__(self) -> None:
        check_range("SoftTargets", 1, inf, count=self.count)
        check_fading("SoftTargets", self.share, self.until)
        if self.share >= 1:
            raise RecipeError(
                f"share cannot be {self.share}", where="SoftTargets", hint="give the true token a part: below 1"
            )

    def check_positions(self, bag: int, near: int) -> None:
        """Refuse positions of several tokens, or with several targets.

        Raises:
            RecipeError: they are such.
        """
        if (bag, near) != (1, 1):
            raise RecipeError(
                f"a teacher's predictions are of one token, positions have {bag} and predict {near}",
                where="NextToken(soft=...)",
                hint="leave bag and targets out, or distill in another stage",
            )

    def weight_at(self, progress: Tensor) -> Tensor:
        """Return the weight of all of them together where the true token weighs 1."""
        share = self.share * fraction_left(self.until, progress)
        return share / (1 - share)


def soft_targets_of(batch: Batch, spec: SoftTargets, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return a teacher's tokens [B, L, K] for the next token of each position, and their weights, which add up to 1.

    Where there are no predictions, the first one is the true token.

    Args:
        batch: whose extras have the predictions for each token.
        spec: says how many are taken.
        targets: the next tokens [B, L].

    Raises:
        RecipeError: the data brings none, or fewer.
    """
    if TOKENS not in batch.extras or batch.extras[TOKENS].shape[-1] < spec.count:
        found = f"only {batch.extras[TOKENS].shape[-1]}" if TOKENS in batch.extras else "none"
        raise RecipeError(
            f"the data has {found} of {spec.count} predictions of a teacher for each token",
            where="NextToken(soft=SoftTargets(...))",
            hint='compute and read them: TopKPredictions(name="teacher", count=16, ...), '
            'Mixture(soft_targets="teacher", ...)',
        )
    of_next = slice(1, 1 + targets.shape[1])
    tokens = batch.extras[TOKENS][:, of_next, : spec.count]
    probabilities = batch.extras[PROBABILITIES][:, of_next, : spec.count]
    together = probabilities.sum(dim=-1, keepdim=True)
    alone = torch.zeros_like(probabilities)
    alone[..., 0] = 1.0
    has_some = together > 0
    weights = torch.where(has_some, probabilities / together.clamp(min=1e-20), alone)
    return torch.where(has_some, tokens.long(), targets[..., None]), weights
