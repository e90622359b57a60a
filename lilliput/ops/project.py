"""Several projections of one input, side by side. Shapes: D input channels, E_i outputs."""

import torch
import torch.nn.functional as F
from torch import Tensor

TOGETHER = 1024
"""Positions from which on one product is worth putting the weights side by side; a decode step would only copy them."""


def project(x: Tensor, *weights: Tensor) -> Tensor:
    """Project x [..., D] by each weight [E_i, D], to [..., sum of E_i]; one product, where that is faster."""
    if x.is_cuda and x.numel() >= TOGETHER * x.shape[-1]:
        return F.linear(x, torch.cat(weights))
    return torch.cat([F.linear(x, weight) for weight in weights], dim=-1)
