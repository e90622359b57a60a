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
        k, v: the cache, [B, G, C, D] each, that of the new positions in it; slots behind them hold anything finite.
        index: the slot of each query [B, L].
        softcap: of the scores; None for none.

    Returns:
        [B, L, H, D] in the dtype of q.
    """
    mask = (torch.arange(k.shape[2], device=q.device) <= index[..., None])[:, None]  # [B, 1, L, C]
    if softcap is not None:
        return masked_attention(q, k.transpose(1, 2), v.transpose(1, 2), mask, softcap)
    # Queries that share keys are further queries of the same head: on a processor half the time of enable_gqa.
    count, each = k.shape[1], q.shape[2] // k.shape[1]
    grouped = q.unflatten(2, (count, each)).permute(0, 2, 3, 1, 4).flatten(2, 3)  # [B, G, (H / G) L, D]
    mixed = F.scaled_dot_product_attention(grouped, k, v, mask.repeat(1, 1, each, 1))
    return mixed.unflatten(2, (each, -1)).permute(0, 3, 1, 2, 4).flatten(2, 3)
