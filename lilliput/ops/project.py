"""Several projections of one input, as one product where that is faster. Shapes: D input channels, E_i outputs."""

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


def as_one(x: Tensor) -> bool:
    """Whether projections of x are one product."""
    return x.is_cuda and x.numel() >= TOGETHER * x.shape[-1]
