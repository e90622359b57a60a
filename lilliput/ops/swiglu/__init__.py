"""Gated feed-forward layers behind their projection: the product of its halves, and the projection back.

What it is composed of (`gated_activation`, a product) is the specification, on any device; with `triton` what lies
between the products is ours, both ways, and the projection is all that is kept of it for the backward pass.

Shapes: D channels of the stream, I inner ones.
"""

import torch
from torch import Tensor

from lilliput.ops.dispatch import TRITON_HERE, check_backend
from lilliput.ops.dispatch import Backend as Backend
from lilliput.ops.linear import LinearOutput, scale_weight, should_fuse
from lilliput.ops.swiglu.reference import Activation as Activation
from lilliput.ops.swiglu.reference import gated_activation as gated_activation


def swiglu(
    projected: Tensor,
    down: Tensor,
    activation: Activation | None = None,
    *,
    scale: Tensor | None = None,
    residual: Tensor | None = None,
    backend: Backend = Backend.AUTO,
) -> Tensor:
    """onto + times down(gated(gate, up)), each position by itself.

    Args:
        projected: gate and up, side by side, [..., 2 I].
        down: weight [D, I].
        activation: what is squared, see `gated_activation`; None for plain SwiGLU.
        scale: one number that the product is multiplied by; None for 1.
        residual: what the product is added to, [..., D]; None for nothing.
        backend: one of `Backend`.

    Returns:
        [..., D] in the dtype of `projected`, or that of an autocast region around.
    """
    check_backend("swiglu", backend, Backend.TRITON)
    if backend is Backend.AUTO:
        fits = TRITON_HERE and should_fuse(projected) and _is_supported(projected)
        backend = Backend.TRITON if fits else Backend.REFERENCE
    if backend is Backend.REFERENCE:
        gate, up = projected.chunk(2, dim=-1)
        # On a processor last bits of an activation depend on where rows end in memory: as if the gate were by itself.
        gated = gated_activation(gate.contiguous(), up, activation)
        if not torch.is_autocast_enabled(gated.device.type):
            gated = gated.to(down.dtype)  # a square is fp32, whatever the weights are
        made = LinearOutput(gated, down, scale).materialize()
        return made if residual is None else residual + made
    from lilliput.ops.swiglu.triton import swiglu_triton

    return swiglu_triton(projected, scale_weight(down, scale), residual, activation)


def _is_supported(projected: Tensor) -> bool:
    from lilliput.ops.swiglu.triton import DTYPES

    return projected.dtype in DTYPES
