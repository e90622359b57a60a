"""Gated feed-forward layers: two projections, a product of both, and the projection back.

What it is composed of (`projections`, `gated`, a product) is the specification, on any device; with `triton` what lies
between the products is ours, both ways, and the projection is all that is kept of it for the backward pass.

Shapes: D channels of the stream, I inner ones.
"""

from enum import Enum
from importlib.util import find_spec

from torch import Tensor

from lilliput.ops.feed_forward.gated import Square as Square
from lilliput.ops.feed_forward.gated import gated as gated
from lilliput.ops.project import as_one, multiplied, product, project, projections

TRITON_HERE = find_spec("triton") is not None


class Backend(Enum):
    """Which implementation runs; `AUTO` picks the fastest one for the input."""

    AUTO = "auto"
    COMPOSED = "composed"
    TRITON = "triton"


def feed_forward(
    x: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
    square: Square | None = None,
    *,
    gain: Tensor | None = None,
    times: Tensor | None = None,
    onto: Tensor | None = None,
    backend: Backend = Backend.AUTO,
) -> Tensor:
    """onto + times down(gated(gate gain x, up gain x)), each position by itself.

    Args:
        x: [..., D].
        gate, up: weights [I, D].
        down: weight [D, I].
        square: what is squared, see `gated`; None for nothing.
        gain: what the channels of x are still to be multiplied by, [D]; None for 1.
        times: one number that the product is multiplied by; None for 1.
        onto: what the product is added to, [..., D]; None for nothing.
        backend: one of `Backend`.

    Returns:
        [..., D] in the dtype of x, or that of an autocast region around.
    """
    if backend is Backend.AUTO:
        backend = Backend.TRITON if TRITON_HERE and as_one(x) and _fits(x) else Backend.COMPOSED
    if backend is Backend.COMPOSED:
        opening, content = projections(x, gate, up, gain=gain)
        made = product(gated(opening, content, square), down, times)
        return made if onto is None else onto + made
    from lilliput.ops.feed_forward.triton import fused

    return fused(project(x, gate, up, gain=gain), multiplied(down, times), onto, square)


def _fits(x: Tensor) -> bool:
    from lilliput.ops.feed_forward.triton import DTYPES

    return x.dtype in DTYPES
