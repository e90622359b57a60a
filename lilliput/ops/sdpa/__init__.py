"""Causal attention with grouped queries, document boundaries, a soft-cap and a cache of earlier keys.

`reference` is the specification; `sdpa`, PyTorch's fused attention, and `triton`, kernels for GPUs that skip what other
documents hold, are tested against it, values and gradients.

Shapes: B rows, L queries, T keys (the queries are the last L of T positions), H query heads, G key heads, D width.
"""

import torch.nn.functional as F
from torch import Tensor

from lilliput.base.errors import MachineError
from lilliput.ops.dispatch import TRITON_HERE, check_backend
from lilliput.ops.dispatch import Backend as Backend
from lilliput.ops.sdpa.reference import causal_mask, sdpa_reference


def sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    document_ids: Tensor | None = None,
    softcap: float | None = None,
    backend: Backend = Backend.AUTO,
) -> Tensor:
    """Each query looks at the keys of its own document up to its own position.

    Args:
        q: queries [B, L, H, D].
        k: keys [B, T, G, D], G dividing H: query head h reads key head h // (H / G).
        v: values [B, T, G, D].
        document_ids: document numbers [B, T], documents one after the other, or None for one document; only for rows
            without a cache (L = T).
        softcap: scores s become cap * tanh(s / cap) (Gemma 2, arXiv 2408.00118); None for no cap.
        backend: one of `Backend`.

    Returns:
        [B, L, H, D] in the dtype of q.

    Raises:
        MachineError: the backend that was asked for cannot run here or not on such inputs.
    """
    check_backend("sdpa", backend, Backend.TORCH, Backend.TRITON)
    if backend is Backend.AUTO:
        backend = _fastest(q, k, v, softcap)
    if backend is Backend.TRITON:
        return _kernels(q, k, v, document_ids, softcap)
    if backend is Backend.REFERENCE:
        return sdpa_reference(q, k, v, document_ids, softcap)
    return _sdpa(q, k, v, document_ids, softcap)


def _fastest(q: Tensor, k: Tensor, v: Tensor, cap: float | None) -> Backend:
    if q.is_cuda and TRITON_HERE:
        from lilliput.ops.sdpa.triton import is_supported

        if is_supported(q, k, v):
            return Backend.TRITON
    return Backend.TORCH if cap is None else Backend.REFERENCE


def _kernels(q: Tensor, k: Tensor, v: Tensor, document_ids: Tensor | None, cap: float | None) -> Tensor:
    if not TRITON_HERE:
        raise MachineError(
            "attention cannot run as Triton kernels, because Triton is not installed",
            where="attend(backend=Backend.TRITON)",
            hint="install PyTorch for CUDA or ROCm, which brings Triton, or leave the choice to Backend.AUTO",
        )
    from lilliput.ops.sdpa.triton import sdpa_triton

    return sdpa_triton(q, k, v, document_ids, cap)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, document_ids: Tensor | None, cap: float | None) -> Tensor:
    if cap is not None:
        raise MachineError(
            "PyTorch's fused attention has no soft-cap",
            where="attend(backend=Backend.TORCH)",
            hint="leave the choice to Backend.AUTO",
        )
    queries, keys = q.shape[1], k.shape[1]
    # Plain causal masking needs no mask, and lets PyTorch choose kernels that cannot take one.
    plain = document_ids is None and queries == keys
    mask = None if plain else causal_mask(queries, keys, document_ids, q.device)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=plain, enable_gqa=grouped).transpose(1, 2)
