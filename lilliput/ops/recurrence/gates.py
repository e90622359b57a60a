"""From HGRN2's projection to its scan: q = silu, f = sigmoid, k = 1 - f, rotation of q and k, resets at documents.

Shapes: B rows, L positions, H heads, K channels of a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lilliput.ops.gated_scan import reset_at_documents
from lilliput.ops.rotate import rotate


def gates(
    projected: Tensor,
    heads: int,
    bias: Tensor | None = None,
    theta: float | None = None,
    first: int = 0,
    segments: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the scan reads; gates in fp32 (fp64 for fp64), whatever autocast says.

    Args:
        projected: [B, L, 3 H K]: queries, forget gates and inputs side by side, before their activations.
        heads: H.
        bias: of the forget gates [H K], or None.
        theta: base of the rotation's frequencies; None for no rotation.
        first: position of the row's beginning.
        segments: document numbers [B, L], or None for one document.

    Returns:
        q, k, v [B, L, H, K] in the dtype of `projected`, and log f in fp32 (or fp64).
    """
    q, z, v = (part.unflatten(-1, (heads, -1)) for part in projected.chunk(3, dim=-1))
    with torch.autocast(projected.device.type, enabled=False):
        z = z if z.dtype == torch.float64 else z.float()
        if bias is not None:
            z = z + bias.view(heads, -1)
        log_decay = F.logsigmoid(z)
        # sigmoid(-z), not 1 - exp(log f): in half precision the difference is 0 beyond f = 0.9998.
        k = torch.sigmoid(-z).to(q.dtype)
        q = F.silu(q)
        if theta is not None:
            q, k = rotate(q, theta, first), rotate(k, theta, first)
        if segments is not None:
            log_decay = reset_at_documents(log_decay, segments)
    return q, k, v, log_decay
