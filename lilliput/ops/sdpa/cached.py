"""Attention of new positions to the keys and values that a cache holds: rows of different lengths, one mask.

`masked_attention` is the specification; PyTorch's fused attention, and sums for one new position in a compiled function
on a processor, are tested against it.

Shapes: B rows, L new positions, C slots of the cache, H query heads, G key heads, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lilliput.ops.dispatch import Backend as Backend
from lilliput.ops.dispatch import check_backend
from lilliput.ops.sdpa.reference import masked_attention

FEW = 2**16
"""Numbers in the keys of a row up to which sums are as fast as PyTorch's attention, which reads each once for all heads
that share it: 1,024 slots of two heads of 32; of 4,096 it makes 94 microseconds, and sums make 148.
"""


def sdpa_cached(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    softcap: float | None = None,
    backend: Backend = Backend.AUTO,
) -> Tensor:
    """Each query looks at the keys of its row up to its own.

    Args:
        q: queries [B, L, H, D].
        k, v: the cache, [B, G, C, D] each, that of the new positions in it; slots behind them hold anything finite.
        index: the slot of each query [B, L].
        softcap: of the scores; None for none.
        backend: `TORCH` has no soft-cap, and `SUM` is for L = 1.

    Returns:
        [B, L, H, D] in the dtype of q.
    """
    check_backend("sdpa_cached", backend, Backend.TORCH, Backend.SUM)
    if backend is Backend.AUTO:
        backend = _fastest(q, k, softcap)
    mask = (torch.arange(k.shape[2], device=q.device) <= index[..., None])[:, None]  # [B, 1, L, C]
    if backend is Backend.SUM:
        return _sums(q, k, v, mask, softcap)
    if backend is Backend.REFERENCE:
        return masked_attention(q, k.transpose(1, 2), v.transpose(1, 2), mask, softcap)
    # Queries that share keys are further queries of the same head: on a processor half the time of enable_gqa.
    count, each = k.shape[1], q.shape[2] // k.shape[1]
    grouped = q.unflatten(2, (count, each)).permute(0, 2, 3, 1, 4).flatten(2, 3)  # [B, G, (H / G) L, D]
    mixed = F.scaled_dot_product_attention(grouped, k, v, mask.repeat(1, 1, each, 1))
    return mixed.unflatten(2, (each, -1)).permute(0, 3, 1, 2, 4).flatten(2, 3)


def _fastest(q: Tensor, k: Tensor, softcap: float | None) -> Backend:
    if torch.compiler.is_compiling() and not q.is_cuda and q.shape[1] == 1 and k[0].numel() <= FEW:
        return Backend.SUM
    return Backend.TORCH if softcap is None else Backend.REFERENCE


def _sums(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, cap: float | None) -> Tensor:
    """One position's attention as sums that a compiler fuses with what makes q: 10 and 24 microseconds a layer of
    SLM-10M at 64 and 512 slots on two cores, where PyTorch's takes 19 and 24 and a call of its own.
    """
    grouped = q[:, 0].unflatten(1, (k.shape[1], -1))  # [B, G, H / G, D]
    grouped = grouped.as_strided(grouped.shape, grouped.stride())  # not made again for every slot
    scores = (grouped[..., None, :] * k[:, :, None]).sum(dim=-1) * q.shape[-1] ** -0.5  # [B, G, H / G, C]
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    scores = scores.masked_fill(~mask, -torch.inf)
    weights = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    mixed = (weights[..., None] * v[:, :, None]).sum(dim=-2) / weights.sum(dim=-1, keepdim=True)
    return mixed.flatten(1, 2)[:, None].to(q.dtype)
