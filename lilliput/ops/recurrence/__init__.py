"""HGRN2's recurrence over whole rows, from the projection to what the output norm reads.

`composed` of `gates` and `gated_scan` is the specification, on any device; `triton` does the same with the projection
as almost all that is kept for the backward pass.

Shapes: B rows, L positions, H heads, K channels of a head.
"""

from enum import Enum
from importlib.util import find_spec

from torch import Tensor

from lilliput.ops.gated_scan import gated_scan
from lilliput.ops.recurrence.gates import gates as gates

TRITON_HERE = find_spec("triton") is not None


class Backend(Enum):
    """Which implementation runs; `AUTO` picks the fastest one for the input."""

    AUTO = "auto"
    COMPOSED = "composed"
    TRITON = "triton"


def recurrence(
    projected: Tensor,
    heads: int,
    *,
    bias: Tensor | None = None,
    theta: float | None = None,
    segments: Tensor | None = None,
    backend: Backend = Backend.AUTO,
) -> Tensor:
    """Run the recurrence over whole rows, from an empty state.

    Args:
        projected, heads, bias, theta, segments: see `gates`.
        backend: one of `Backend`.

    Returns:
        [B, L, H K] in the dtype of `projected`.
    """
    if backend is Backend.AUTO:
        backend = Backend.TRITON if TRITON_HERE and projected.is_cuda and _fits(projected, heads) else Backend.COMPOSED
    if backend is Backend.COMPOSED:
        return gated_scan(*gates(projected, heads, bias, theta, 0, segments))[0].flatten(-2)
    from lilliput.ops.recurrence.triton import fused

    return fused(projected, heads, bias, theta, segments)


def _fits(projected: Tensor, heads: int) -> bool:
    from lilliput.ops.recurrence.triton import fits

    return fits(projected, heads)
