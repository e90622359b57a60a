"""Products with weights: several of one input as one, and one times a number, in the form that is faster.

The gradient of such a number is a sum over all that it multiplies. Where this is the product, the product is kept for
it and read again, and the product's gradient is a tensor of its own. Where it is the weight, there is nothing of that,
and the sum is equal but for rounding. A few positions are less to multiply than a weight.

Shapes: D input channels, E outputs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

TOGETHER = 1024
"""Positions from which on a product is worth another form of its weights; a decode step would only copy them."""


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


def product(x: Tensor, weight: Tensor, times: Tensor | None = None) -> Tensor:
    """x [..., D] by a weight [E, D], times a number or 1: [..., E]."""
    if times is None:
        return F.linear(x, weight)
    return F.linear(x, times * weight) if as_one(x) else times * F.linear(x, weight)


def as_one(x: Tensor) -> bool:
    """Whether projections of x are one product, and numbers multiply its weight."""
    return x.is_cuda and x.numel() >= TOGETHER * x.shape[-1]
