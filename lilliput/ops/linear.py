"""Products with weights: several of one input as one, and those with factors, in the form that is faster.

A factor is a gain of the input's channels or a number for all that comes out. Its gradient is a sum over all that it
multiplies. Where this is what goes in or comes out, there is one more tensor to keep, to read and to sum over all
positions. Where it is the weight there is none, and the sum is equal but for rounding. A few positions are less to
multiply than a weight.

Shapes: D input channels, E outputs.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TOGETHER = 1024
"""Positions from which on a product is worth another form of its weights; a decode step would only copy them."""


def fused_linear(x: Tensor, *weights: Tensor, gain: Tensor | None = None) -> Tensor:
    """Project x [..., D], times a gain [D] or 1, by each weight [E_i, D], side by side: [..., sum of E_i]."""
    if should_fuse(x):
        return F.linear(x, scale_weight(torch.cat(weights), gain))
    return torch.cat([F.linear(x, scale_weight(weight, gain)) for weight in weights], dim=-1)


class LinearOutput(NamedTuple):
    """A product that is still to be made."""

    x: Tensor
    """[..., D]."""
    weight: Tensor
    """[E, D]."""
    scale: Tensor | None = None
    """A number that all of it is multiplied by; None for 1."""

    def materialize(self) -> Tensor:
        """[..., E]."""
        if self.scale is None or should_fuse(self.x):
            return F.linear(self.x, scale_weight(self.weight, self.scale))
        return self.scale * F.linear(self.x, self.weight)


def scale_weight(weight: Tensor, factor: Tensor | None) -> Tensor:
    """A weight [E, D] times a gain [D], a number, or 1, in its dtype."""
    return weight if factor is None else (factor * weight).to(weight.dtype)


def matmul_dtype(x: Tensor) -> torch.dtype:
    """Return what products with x are made of here: its own precision, or that of an autocast region around."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def should_fuse(x: Tensor) -> bool:
    """Return whether projections of x are one product, and numbers multiply its weight."""
    return x.is_cuda and x.numel() >= TOGETHER * x.shape[-1]
