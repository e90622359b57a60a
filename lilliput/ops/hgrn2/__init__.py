"""HGRN2's recurrence over whole rows, from the projection to what the output norm reads.

The composition of `activations` and `gla` is the specification, on any device; `triton` does the same with the
projection as almost all that is kept for the backward pass.

Shapes: B rows, L positions, H heads, K channels of a head.
"""

from torch import Tensor

from lilliput.ops.dispatch import TRITON_HERE, check_backend
from lilliput.ops.dispatch import Backend as Backend
from lilliput.ops.gla import gla
from lilliput.ops.hgrn2.activations import activations as activations
from lilliput.ops.rope import Layout


def hgrn2(
    projected: Tensor,
    heads: int,
    *,
    bias: Tensor | None = None,
    bound: Tensor | None = None,
    theta: float | None = None,
    layout: Layout = "half",
    tie: bool = False,
    document_ids: Tensor | None = None,
    backend: Backend = Backend.AUTO,
) -> Tensor:
    """Run the recurrence over whole rows, from an empty state.

    Args:
        projected, heads, bias, bound, theta, layout, tie, document_ids: see `activations`.
        backend: one of `Backend`; `TRITON` has no bound, no ties, and turns channels in halves only.

    Returns:
        [B, L, H K] in the dtype of `projected`.
    """
    built = bound is None and not tie and (theta is None or layout == "half")
    check_backend("hgrn2", backend, Backend.TRITON)
    if backend is Backend.AUTO:
        fits = built and TRITON_HERE and projected.is_cuda and _is_supported(projected, heads)
        backend = Backend.TRITON if fits else Backend.REFERENCE
    if backend is Backend.REFERENCE:
        return gla(*activations(projected, heads, bias, bound, theta, layout, tie, 0, document_ids))[0].flatten(-2)
    assert built, "the kernels have no bound, no ties, and turn channels in halves only"
    from lilliput.ops.hgrn2.triton import hgrn2_triton

    return hgrn2_triton(projected, heads, bias, theta, document_ids)


def has_kernels_for(width: int) -> bool:
    """Return whether the kernels take heads of such a width, in the precisions that models are trained in."""
    if not TRITON_HERE:
        return False
    from lilliput.ops.gla.triton import WIDTHS

    return width in WIDTHS


def _is_supported(projected: Tensor, heads: int) -> bool:
    from lilliput.ops.hgrn2.triton import is_supported

    return is_supported(projected, heads)
