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


def project(x: Tensor, *weights: Tensor, gain: Tensor | None = None) -> Tensor:
    """Project x [..., D], times a gain [D] or 1, by each weight [E_i, D], side by side: [..., sum of E_i]."""
    if as_one(x):
        return F.linear(x, multiplied(torch.cat(weights), gain))
    return torch.cat([F.linear(x, multiplied(weight, gain)) for weight in weights], dim=-1)


class Product(NamedTuple):
    """A product that is still to be made."""

    x: Tensor
    """[..., D]."""
    weight: Tensor
    """[E, D]."""
    times: Tensor | None = None
    """A number that all of it is multiplied by; None for 1."""

    def made(self) -> Tensor:
        """[..., E]."""
        if self.times is None or as_one(self.x):
            return F.linear(self.x, multiplied(self.weight, self.times))
        return self.times * F.linear(self.x, self.weight)


def multiplied(weight: Tensor, factor: Tensor | None) -> Tensor:
    """A weight [E, D] times a gain [D], a number, or 1, in its dtype."""
    return weight if factor is None else (factor * weight).to(weight.dtype)


def of_products(x: Tensor) -> torch.dtype:
    """What products with x are made of here: its own precision, or that of an autocast region around."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def as_one(x: Tensor) -> bool:
    """Whether projections of x are one product, and numbers multiply its weight."""
    return x.is_cuda and x.numel() >= TOGETHER * x.shape[-1]
