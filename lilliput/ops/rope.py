"""Rotation of channel pairs by their position (RoPE, arXiv 2104.09864): pair j at position p by p theta^(-2j/D).

Shapes: B rows, L positions, H heads, D head width.
"""

from functools import cache
from typing import Literal

import torch
from torch import Tensor

Layout = Literal["half", "interleaved"]
"""Which channels of a head are pair j: j and j + D/2, or 2j and 2j + 1. What a model of one kind computes, one of the
other kind computes with its channels in another order."""
LAYOUTS: dict[str, tuple[tuple[int, int], int]] = {"half": ((2, -1), -2), "interleaved": ((-1, 2), -1)}
"""Shapes into which the channels of a head unfold, and the axis along which the two of a pair then lie."""


def rotate(x: Tensor, theta: float, first: int | Tensor = 0, layout: Layout = "half") -> Tensor:
    """Turn [B, L, H, D] as positions first, first + 1, ...; angles in fp32 (fp64 for fp64), result in x's dtype.

    `first` may be one of each row, [B].
    """
    wide = x.dtype if x.dtype == torch.float64 else torch.float32
    angle = angles(theta, x.shape[-1] // 2, first, x.shape[1], x.device, wide)[..., None, :]  # [L, 1, D/2]
    cos, sin = angle.cos(), angle.sin()
    unfolded, axis = LAYOUTS[layout]
    one, two = x.to(wide).unflatten(-1, unfolded).unbind(axis)
    return torch.stack((one * cos - two * sin, two * cos + one * sin), dim=axis).flatten(-2).to(x.dtype)


def average_pairs(x: Tensor, layout: Layout) -> Tensor:
    """Both channels of each pair of [..., D] at their mean."""
    unfolded, axis = LAYOUTS[layout]
    paired = x.unflatten(-1, unfolded)
    return paired.mean(axis, keepdim=True).expand_as(paired).flatten(-2)


def interleaved_to_half(width: int, layout: Layout) -> Tensor:
    """The channels [D] of a head, ordered so that what turned in `pairs` turns alike in halves."""
    unfolded, axis = LAYOUTS[layout]
    return torch.arange(width).unflatten(0, unfolded).movedim(axis, 0).flatten()


def angles(
    theta: float, half: int, first: int | Tensor, length: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Radians [L, D/2] by which pairs turn at positions from `first` on; [B, L, D/2] where each row has its own."""
    frequency = theta ** (torch.arange(half, device=device, dtype=dtype) / -half)
    if isinstance(first, Tensor):
        positions = first[:, None] + torch.arange(length, device=device)
        return positions.to(dtype)[..., None] * frequency
    return torch.outer(torch.arange(first, first + length, device=device, dtype=dtype), frequency)


@cache
def cos_sin_table(theta: float, half: int, length: int, device: torch.device) -> Tensor:
    """Cosines and sines of a row's positions, fp32 [2, L, D/2], for kernels that would else compute them each time.

    Inside of a fused kernel every channel of every row makes its own: at SLM-10M's shape the gradient of a rotation
    took 0.57 ms a layer (H100), of which reading and writing account for 0.08.
    """
    angle = angles(theta, half, 0, length, device, torch.float32)
    return torch.stack((angle.cos(), angle.sin()))
