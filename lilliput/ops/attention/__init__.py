"""Attention over whole rows, from the projection to what the output matrix reads.

The composition of `heads` and `sdpa` is the specification, on any device; `triton` does the same where the projection
lies, and keeps no more of it for the backward pass.

Shapes: B rows, L positions, H query heads, G key heads, D head width.
"""

from torch import Tensor

from lilliput.ops.attention.heads import heads as heads
from lilliput.ops.dispatch import TRITON_HERE, check_backend
from lilliput.ops.dispatch import Backend as Backend
from lilliput.ops.rope import Layout
from lilliput.ops.sdpa import sdpa


def attention(
    projected: Tensor,
    shared: int,
    width: int,
    *,
    gains: tuple[Tensor, Tensor] | None = None,
    eps: float = 1e-6,
    theta: float | None = None,
    layout: Layout = "half",
    document_ids: Tensor | None = None,
    softcap: float | None = None,
    backend: Backend = Backend.AUTO,
) -> Tensor:
    """Each position of a row reads its own document up to itself.

    Args:
        projected, shared, width, gains, eps, theta, layout: see `heads`.
        document_ids, softcap: see `sdpa`.
        backend: one of `Backend`; `TRITON` turns channels in halves only, and writes into the projection.

    Returns:
        [B, L, H D] in the dtype of `projected`.
    """
    built = theta is None or layout == "half"
    check_backend("attention", backend, Backend.TRITON)
    if backend is Backend.AUTO:
        fits = built and TRITON_HERE and projected.is_cuda and _is_supported(projected, width)
        backend = Backend.TRITON if fits else Backend.REFERENCE
    if backend is Backend.REFERENCE:
        return sdpa(*heads(projected, shared, width, gains, eps, theta, layout), document_ids, softcap).flatten(-2)
    assert built, "the kernels turn channels in halves only"
    from lilliput.ops.attention.triton import attention_triton

    return attention_triton(projected, shared, width, gains, eps, theta, document_ids, softcap)


def _is_supported(projected: Tensor, width: int) -> bool:
    from lilliput.ops.attention.triton import is_supported

    return is_supported(projected, width)
