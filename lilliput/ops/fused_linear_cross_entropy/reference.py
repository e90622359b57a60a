"""All logits at once: the specification. Shapes: P positions, S tokens in a bag, D width, V vocabulary."""

from torch import Tensor

from lilliput.ops.softcap import softcap as apply_softcap
from lilliput.ops.softcap import to_fp32


def fused_linear_cross_entropy_reference(
    hidden: Tensor, head: Tensor, targets: Tensor, weight: Tensor, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """See `fused_linear_cross_entropy`; [P, D], [V, D], [P, S] and [P, S] -> loss [P] and logsumexp [P]."""
    logits = to_fp32(hidden @ head.to(hidden.dtype).T)
    if softcap is not None:
        logits = apply_softcap(logits, softcap)
    lse = logits.logsumexp(dim=-1)
    loss = (weight * (lse[..., None] - logits.gather(-1, targets))).sum(dim=-1)
    return loss, lse.masked_fill((weight == 0).all(dim=-1), 0.0)
