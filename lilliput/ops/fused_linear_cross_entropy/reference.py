"""All logits at once: the specification. Shapes: P positions, S tokens in a bag, D width, V vocabulary."""

from torch import Tensor

from lilliput.ops.softcap import soft_cap, wide


def naive(hidden: Tensor, head: Tensor, targets: Tensor, weight: Tensor, cap: float | None) -> tuple[Tensor, Tensor]:
    """See `bag_loss`; [P, D], [V, D], [P, S] and [P, S] -> loss [P] and logsumexp [P]."""
    logits = wide(hidden @ head.to(hidden.dtype).T)
    if cap is not None:
        logits = soft_cap(logits, cap)
    lse = logits.logsumexp(dim=-1)
    loss = (weight * (lse[..., None] - logits.gather(-1, targets))).sum(dim=-1)
    return loss, lse.masked_fill((weight == 0).all(dim=-1), 0.0)
