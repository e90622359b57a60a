"""Attention of new positions to the keys and values that a cache holds: rows of different lengths, one mask.

Shapes: B rows, L new positions, C slots of the cache, H query heads, G key heads, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lilliput.ops.sdpa.reference import masked_attention


def sdpa_cached(q: Tensor, k: Tensor, v: Tensor, index: Tensor, softcap: float | None = None) -> Tensor:
    """Each query looks at the keys of its row up to its own.

    Args:
        q: queries [B, L, H, D].
        k, v: the cache, [B, C, G, D] each, that of the new positions in it; slots behind them hold anything finite.
        index: the slot of each query [B, L].
        softcap: of the scores; None for none.

    Returns:
        [B, L, H, D] in the dtype of q.
    """
    mask = (torch.arange(k.shape[1], device=q.device) <= index[..., None])[:, None]  # [B, 1, L, C]
    if softcap is not None:
        return masked_attention(q, k, v, mask, softcap)
    grouped = q.shape[2] != k.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=grouped).transpose(1, 2)
