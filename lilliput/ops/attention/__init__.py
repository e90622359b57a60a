"""Attention over whole rows, from the projection to what the output matrix reads.

`composed` of `heads` and `attend` is the specification, on any device; `triton` does the same where the projection
lies, and keeps no more of it for the backward pass.

Shapes: B rows, L positions, H query heads, G key heads, D head width.
"""

from torch import Tensor

from lilliput.ops.attention.heads import heads as heads
from lilliput.ops.dispatch import TRITON_HERE
from lilliput.ops.dispatch import Backend as Backend
from lilliput.ops.rope import Pairs
from lilliput.ops.sdpa import attend


def attention(
    projected: Tensor,
    shared: int,
    width: int,
    *,
    gains: tuple[Tensor, Tensor] | None = None,
    eps: float = 1e-6,
    theta: float | None = None,
    pairs: Pairs = "half",
    segments: Tensor | None = None,
    cap: float | None = None,
    backend: Backend = Backend.AUTO,
) -> Tensor:
    """Each position of a row reads its own document up to itself.

    Args:
        projected, shared, width, gains, eps, theta, pairs: see `heads`.
        segments, cap: see `attend`.
        backend: one of `Backend`; `TRITON` turns channels in halves only, and writes into the projection.

    Returns:
        [B, L, H D] in the dtype of `projected`.
    """
    built = theta is None or pairs == "half"
    if backend is Backend.AUTO:
        fits = built and TRITON_HERE and projected.is_cuda and _fits(projected, width)
        backend = Backend.TRITON if fits else Backend.COMPOSED
    if backend is Backend.COMPOSED:
        return attend(*heads(projected, shared, width, gains, eps, theta, pairs), segments, cap).flatten(-2)
    assert built, "the kernels turn channels in halves only"
    from lilliput.ops.attention.triton import fused

    return fused(projected, shared, width, gains, eps, theta, segments, cap)


def _fits(projected: Tensor, width: int) -> bool:
    from lilliput.ops.attention.triton import fits

    return fits(projected, width)
