"""Products with weights: several projections of one input as one, and one that is multiplied by a number.

Shapes: D input channels, E outputs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

TOGETHER = 1024
"""Positions from which on one product is worth putting the weights side by side; a decode step would only copy them."""


def project(x: Tensor, *weights: Tensor) -> Tensor:
    """Project x [..., D] by each weight [E_i, D], side by side: [..., sum of E_i]."""
    if as_one(x):
        return F.linear(x, torch.cat(weights))
    return torch.cat([F.linear(x, weight) for weight in weights], dim=-1)


def projections(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
    """The same, each by itself [..., E_i]; views of one tensor where it is one product."""
    if as_one(x):
        return project(x, *weights).split([len(weight) for weight in weights], dim=-1)
    return tuple(F.linear(x, weight) for weight in weights)


def product(x: Tensor, weight: Tensor, times: Tensor | None) -> Tensor:
    """x [..., D] by a weight [E, D], times a number or 1: [..., E]."""
    return F.linear(x, multiplied(weight, times))


def multiplied(weight: Tensor, times: Tensor | None) -> Tensor:
    """A weight times a number or 1: what a product with it is to be multiplied by.

    The gradient of that number is a sum over all that it multiplies. Where this is the product, the product is kept and
    read again, and its gradient is a tensor of its own. Where it is the weight, neither is there, and the sum is equal.
    """
    return weight if times is None else times * weight


def as_one(x: Tensor) -> bool:
    """Whether projections of x are one product."""
    return x.is_cuda and x.numel() >= TOGETHER * x.shape[-1]
