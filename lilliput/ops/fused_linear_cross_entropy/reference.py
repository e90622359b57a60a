"""All logits at once: the specification. Shapes: P positions, S tokens in a bag, D width, V vocabulary."""

from dataclasses import dataclass

from torch import Tensor

from lilliput.ops.softcap import softcap as apply_softcap
from lilliput.ops.softcap import to_fp32


def fused_linear_cross_entropy_reference(
    hidden: Tensor, head: Tensor, targets: Tensor, weight: Tensor, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """See `fused_linear_cross_entropy`; [P, D], [V, D], [P, S] and [P, S] -> loss [P, S] and logsumexp [P]."""
    logits = to_fp32(hidden @ head.to(hidden.dtype).T)
    if softcap is not None:
        logits = apply_softcap(logits, softcap)
    lse = logits.logsumexp(dim=-1)
    loss = weight * (lse[..., None] - logits.gather(-1, targets))
    return loss, lse.masked_fill((weight == 0).all(dim=-1), 0.0)


@dataclass(frozen=True, kw_only=True)
class LossCoefficients:
    """cross_entropy * loss + z * charge * lse^2 of a position, where the charge is the sum of its weights.

    Its derivatives are `cross_entropy` by the loss, and 2 z charge lse by the log-sum-exp.
    """

    cross_entropy: float = 0.0
    z: float = 0.0

    def combine(self, loss: Tensor, lse: Tensor, target_weight: Tensor) -> Tensor:
        """The sum over positions of any shape, and over their targets, a scalar in nats."""
        total = self.cross_entropy * loss.sum()
        return total + self.z * (lse.square() * target_weight).sum() if self.z else total
