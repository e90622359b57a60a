"""All logits at once: the specification. Shapes: P positions, S tokens in a bag, D width, V vocabulary."""

import torch
from torch import Tensor


def naive(hidden: Tensor, head: Tensor, targets: Tensor, weight: Tensor, cap: float | None) -> tuple[Tensor, Tensor]:
    """See `lilliput.ops.bag_loss.bag_loss`; [P, D], [V, D], [P, S] and [P, S] -> loss [P] and logsumexp [P]."""
    logits = wide(hidden @ head.to(hidden.dtype).T)
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    lse = logits.logsumexp(dim=-1)
    loss = (weight * (lse[..., None] - logits.gather(-1, targets))).sum(dim=-1)
    return loss, lse.masked_fill((weight == 0).all(dim=-1), 0.0)


def wide(logits: Tensor) -> Tensor:
    """Logits in the precision of what is made of them: fp32, or fp64 as they are."""
    return logits if logits.dtype == torch.float64 else logits.float()
