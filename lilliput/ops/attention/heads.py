"""From a projection to the heads of attention: split, RMSNorm of each query and key (QK-norm), rotation.

Shapes: B rows, L positions, H query heads, G key heads, D head width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lilliput.ops.rope import Layout, rotate


def heads(
    projected: Tensor,
    shared: int,
    width: int,
    gains: tuple[Tensor, Tensor] | None = None,
    eps: float = 1e-6,
    theta: float | None = None,
    layout: Layout = "half",
    first: int | Tensor = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Split a projection into heads, norm and rotate those of queries and keys.

    Args:
        projected: [B, L, (H + 2 G) D]: queries, keys and values side by side.
        shared: G.
        width: D.
        gains: weights [D] of the norms of queries and keys; None for no norm.
        eps: of the norms.
        theta: base of the rotation's frequencies; None for no rotation.
        layout: which channels turn together.
        first: position of the rows' beginning, or of each row's [B].

    Returns:
        queries [B, L, H, D], keys and values [B, L, G, D], in the dtype of `projected`; norms and angles are fp32.
    """
    count = projected.shape[-1] // width - 2 * shared
    queries, keys, values = projected.unflatten(-1, (-1, width)).split([count, shared, shared], dim=2)
    if gains is not None:
        queries, keys = (_norm(x, gain, eps) for x, gain in zip((queries, keys), gains, strict=True))
    if theta is not None:
        queries, keys = (rotate(x, theta, first, layout) for x in (queries, keys))
    return queries, keys, values


def _norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    wide = x if x.dtype == torch.float64 else x.float()
    return F.rms_norm(wide, gain.shape, gain.to(wide.dtype), eps).to(x.dtype)
