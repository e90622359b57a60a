"""Causal attention with grouped queries, document boundaries, a soft-cap and a cache of earlier keys.

`naive` is the specification; `sdpa`, PyTorch's fused attention, and `triton`, kernels for GPUs that skip what other
documents hold, are tested against it, values and gradients.

Shapes: B rows, L queries, T keys (the queries are the last L of T positions), H query heads, G key heads, D width.
"""

from enum import Enum

import torch.nn.functional as F
from torch import Tensor

from lilliput.base.errors import MachineError
from lilliput.ops.dispatch import TRITON_HERE
from lilliput.ops.sdpa.reference import naive, visible


class Backend(Enum):
    """Which implementation runs; `AUTO` picks the fastest one for the input."""

    AUTO = "auto"
    NAIVE = "naive"
    SDPA = "sdpa"
    TRITON = "triton"


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segments: Tensor | None = None,
    cap: float | None = None,
    backend: Backend = Backend.AUTO,
) -> Tensor:
    """Each query looks at the keys of its own document up to its own position.

    Args:
        q: queries [B, L, H, D].
        k: keys [B, T, G, D], G dividing H: query head h reads key head h // (H / G).
        v: values [B, T, G, D].
        segments: document numbers [B, T], documents one after the other, or None for one document; only for rows
            without a cache (L = T).
        cap: scores s become cap * tanh(s / cap) (Gemma 2, arXiv 2408.00118); None for no cap.
        backend: one of `Backend`.

    Returns:
        [B, L, H, D] in the dtype of q.

    Raises:
        MachineError: the backend that was asked for cannot run here or not on such inputs.
    """
    if backend is Backend.AUTO:
        backend = _fastest(q, k, v, cap)
    if backend is Backend.TRITON:
        return _kernels(q, k, v, segments, cap)
    if backend is Backend.NAIVE:
        return naive(q, k, v, segments, cap)
    return _sdpa(q, k, v, segments, cap)


def _fastest(q: Tensor, k: Tensor, v: Tensor, cap: float | None) -> Backend:
    if q.is_cuda and TRITON_HERE:
        from lilliput.ops.sdpa.triton import fits

        if fits(q, k, v):
            return Backend.TRITON
    return Backend.SDPA if cap is None else Backend.NAIVE


def _kernels(q: Tensor, k: Tensor, v: Tensor, segments: Tensor | None, cap: float | None) -> Tensor:
    if not TRITON_HERE:
        raise MachineError(
            "attention cannot run as Triton kernels, because Triton is not installed",
            where="attend(backend=Backend.TRITON)",
            hint="install PyTorch for CUDA or ROCm, which brings Triton, or leave the choice to Backend.AUTO",
        )
    from lilliput.ops.sdpa.triton import fused

    return fused(q, k, v, segments, cap)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, segments: Tensor | None, cap: float | None) -> Tensor:
    if cap is not None:
        raise MachineError(
            "PyTorch's fused attention has no soft-cap",
            where="attend(backend=Backend.SDPA)",
            hint="leave the choice to Backend.AUTO",
        )
    queries, keys = q.shape[1], k.shape[1]
    # Plain causal masking needs no mask, and lets PyTorch choose kernels that cannot take one.
    plain = segments is None and queries == keys
    mask = None if plain else visible(queries, keys, segments, q.device)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=plain, enable_gqa=grouped).transpose(1, 2)
