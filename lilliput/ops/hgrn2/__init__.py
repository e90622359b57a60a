"""HGRN2's recurrence over whole rows, from the projection to what the output norm reads.

`composed` of `gates` and `gated_scan` is the specification, on any device; `triton` does the same with the projection
as almost all that is kept for the backward pass.

Shapes: B rows, L positions, H heads, K channels of a head.
"""

from torch import Tensor

from lilliput.ops.dispatch import TRITON_HERE
from lilliput.ops.dispatch import Backend as Backend
from lilliput.ops.gla import gated_scan
from lilliput.ops.hgrn2.activations import gates as gates
from lilliput.ops.rope import Pairs


def recurrence(
    projected: Tensor,
    heads: int,
    *,
    bias: Tensor | None = None,
    bound: Tensor | None = None,
    theta: float | None = None,
    pairs: Pairs = "half",
    tie: bool = False,
    segments: Tensor | None = None,
    backend: Backend = Backend.AUTO,
) -> Tensor:
    """Run the recurrence over whole rows, from an empty state.

    Args:
        projected, heads, bias, bound, theta, pairs, tie, segments: see `gates`.
        backend: one of `Backend`; `TRITON` has no bound, no ties, and turns channels in halves only.

    Returns:
        [B, L, H K] in the dtype of `projected`.
    """
    built = bound is None and not tie and (theta is None or pairs == "half")
    if backend is Backend.AUTO:
        fits = built and TRITON_HERE and projected.is_cuda and _fits(projected, heads)
        backend = Backend.TRITON if fits else Backend.COMPOSED
    if backend is Backend.COMPOSED:
        return gated_scan(*gates(projected, heads, bias, bound, theta, pairs, tie, 0, segments))[0].flatten(-2)
    assert built, "the kernels have no bound, no ties, and turn channels in halves only"
    from lilliput.ops.hgrn2.triton import fused

    return fused(projected, heads, bias, theta, segments)


def kernels_take(width: int) -> bool:
    """Whether the kernels take heads of such a width, in the precisions that models are trained in."""
    if not TRITON_HERE:
        return False
    from lilliput.ops.gla.triton import WIDTHS

    return width in WIDTHS


def _fits(projected: Tensor, heads: int) -> bool:
    from lilliput.ops.hgrn2.triton import fits

    return fits(projected, heads)
