"""Gated feed-forward layers behind their projection: the product of its halves, and the projection back.

What it is composed of (`gated`, a product) is the specification, on any device; with `triton` what lies between the
products is ours, both ways, and the projection is all that is kept of it for the backward pass.

Shapes: D channels of the stream, I inner ones.
"""

from torch import Tensor

from lilliput.ops.dispatch import TRITON_HERE
from lilliput.ops.dispatch import Backend as Backend
from lilliput.ops.linear import Product, as_one, multiplied
from lilliput.ops.swiglu.reference import Square as Square
from lilliput.ops.swiglu.reference import gated as gated


def feed_forward(
    projected: Tensor,
    down: Tensor,
    square: Square | None = None,
    *,
    times: Tensor | None = None,
    onto: Tensor | None = None,
    backend: Backend = Backend.AUTO,
) -> Tensor:
    """onto + times down(gated(gate, up)), each position by itself.

    Args:
        projected: gate and up, side by side, [..., 2 I].
        down: weight [D, I].
        square: what is squared, see `gated`; None for nothing.
        times: one number that the product is multiplied by; None for 1.
        onto: what the product is added to, [..., D]; None for nothing.
        backend: one of `Backend`.

    Returns:
        [..., D] in the dtype of `projected`, or that of an autocast region around.
    """
    if backend is Backend.AUTO:
        fits = TRITON_HERE and as_one(projected) and _fits(projected)
        backend = Backend.TRITON if fits else Backend.COMPOSED
    if backend is Backend.COMPOSED:
        gate, up = projected.chunk(2, dim=-1)
        # On a processor last bits of an activation depend on where rows end in memory: as if the gate were by itself.
        made = Product(gated(gate.contiguous(), up, square), down, times).made()
        return made if onto is None else onto + made
    from lilliput.ops.swiglu.triton import fused

    return fused(projected, multiplied(down, times), onto, square)


def _fits(projected: Tensor) -> bool:
    from lilliput.ops.swiglu.triton import DTYPES

    return projected.dtype in DTYPES
