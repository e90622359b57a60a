"""The last product of a feed-forward layer in a narrow stream, launched; its kernel is in `triton_narrow`.

Shapes: D channels of the stream, I inner ones.
"""

from typing import Any

import torch
from torch import Tensor

from lilliput.ops.compiler import operator
from lilliput.ops.small_width import INTERPRETED, supports_small_width
from lilliput.ops.swiglu.triton_narrow import down_proj_kernel

POSITIONS, CHANNELS, WARPS, STAGES = 128, 64, 8, 3
"""Positions of a program, the channels it takes at a time, its warps, and its stages of loading ahead. One H100,
2026-11-26, 131,072 positions, 640 channels, a stream of 256: 0.19 ms; half the positions and warps, two stages 0.21;
others 0.22 to 0.35. The activation, a product and a sum by themselves take 0.31."""


def is_supported(projected: Tensor, down: Tensor) -> bool:
    """Return whether it is to be made here."""
    return supports_small_width(projected, len(down)) and projected.dtype == down.dtype


@operator("lilliput::gated_product")
def down_proj(projected: Tensor, down: Tensor, onto: Tensor | None, activation: str | None) -> Tensor:
    """[..., 2 I], [D, I] and [..., D] -> onto, or nothing, plus the product [..., D]. It has no gradient itself."""
    assert projected.is_cuda or INTERPRETED
    (width, inner), total = down.shape, projected.numel() // projected.shape[-1]
    outputs, kernel = _empty(projected, down, onto), down_proj_kernel
    launch: Any = kernel[(-(-total // POSITIONS),)]
    with torch.cuda.device_of(projected):
        launch(
            projected.contiguous(),
            down.contiguous(),
            None if onto is None else onto.contiguous(),
            outputs,
            total,
            INNER=inner,
            D=width,
            M=POSITIONS,
            K=CHANNELS,
            SQUARE=activation,
            num_warps=WARPS,
            num_stages=STAGES,
        )
    return outputs


def _empty(projected: Tensor, down: Tensor, onto: Tensor | None) -> Tensor:
    return projected.new_empty(*projected.shape[:-1], len(down), dtype=None if onto is None else onto.dtype)


@down_proj.register_fake
def _(projected: Tensor, down: Tensor, onto: Tensor | None, activation: str | None) -> Tensor:
    return _empty(projected, down, onto)
