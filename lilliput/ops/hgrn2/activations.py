"""From HGRN2's projection to its scan: q = silu, f = sigmoid, k = 1 - f, rotation of q and k, resets at documents.

With a lower bound b, f = b + (1 - b) sigmoid.

Shapes: B rows, L positions, H heads, K channels of a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lilliput.ops.gla import reset_at_documents
from lilliput.ops.rope import Layout, average_pairs, rotate


def activations(
    projected: Tensor,
    heads: int,
    bias: Tensor | None = None,
    bound: Tensor | None = None,
    theta: float | None = None,
    layout: Layout = "half",
    tie: bool = False,
    first: int | Tensor = 0,
    document_ids: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what the scan reads; gates in fp32 (fp64 for fp64), whatever autocast says.

    Args:
        projected: [B, L, 3 H K]: queries, forget gates and inputs side by side, before their activations.
        heads: H.
        bias: of the forget gates before their sigmoid [H K], or None.
        bound: least value of the forget gates [H K], from 0 to below 1; None for 0.
        theta: base of the rotation's frequencies; None for no rotation.
        layout: which channels turn together.
        tie: whether the two channels of a pair forget alike: their gates before the sigmoid, and their bounds, are
            those of both at their mean.
        first: position of the rows' beginning, or of each row's [B].
        document_ids: document numbers [B, L], or None for one document.

    Returns:
        q, k, v [B, L, H, K] in the dtype of `projected`, and log f in fp32 (or fp64).
    """
    q, z, v = (part.unflatten(-1, (heads, -1)) for part in projected.chunk(3, dim=-1))
    with torch.autocast(projected.device.type, enabled=False):
        z = z if z.dtype == torch.float64 else z.float()
        if bias is not None:
            z = z + bias.view(heads, -1)
        if bound is not None:
            bound = bound.to(z.dtype).view(heads, -1)
        if tie:
            z, bound = average_pairs(z, layout), None if bound is None else average_pairs(bound, layout)
        log_decay = F.logsigmoid(z)
        # sigmoid(-z), not 1 - exp(log f): in half precision the difference is 0 beyond f = 0.9998.
        k = torch.sigmoid(-z)
        if bound is not None:
            k, log_decay = (1 - bound) * k, _bounded(log_decay, bound)
        q, k = F.silu(q), k.to(q.dtype)
        if theta is not None:
            q, k = rotate(q, theta, first, layout), rotate(k, theta, first, layout)
        if document_ids is not None:
            log_decay = reset_at_documents(log_decay, document_ids)
    return q, k, v, log_decay


def _bounded(log_decay: Tensor, bound: Tensor) -> Tensor:
    """log(b + (1 - b) f) from log f: where f is nothing, its logarithm still has a gradient."""
    least = bound.clamp(min=torch.finfo(bound.dtype).tiny).log()  # the bound of the first layer is 0
    return torch.logaddexp(least, torch.log1p(-bound) + log_decay).clamp(max=0)  # rounding can lead above
