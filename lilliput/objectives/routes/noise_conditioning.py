"""A small network that tells layers how much noise there is: what it returns is added to what they read, or makes their
norms adaptive (AdaLN, arXiv 2212.09748).

It belongs to the route, not to the model: its last layer begins at zero, and it is gone when the phase ends.
"""

import math

import torch
from torch import Tensor, nn

FREQUENCIES = 16
"""Sines and cosines of the level, as many of each: from one turn over `SPAN` to 32, three to an octave."""
SPAN = 4.0
"""More than the distance of log(sigma) / 4 at 0.002 and at 80, which is 2.65."""
INNER = 128


class NoiseConditioning(nn.Module):
    """out(silu(inner(sines and cosines of a level)))."""

    def __init__(self, outputs: int):
        super().__init__()
        self.inner = nn.Linear(2 * FREQUENCIES, INNER)
        self.out = nn.Linear(INNER, outputs)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, level: Tensor) -> Tensor:
        """Levels log(sigma) / 4, one a row [B] -> numbers for all positions of the row, [B, 1, outputs]."""
        octaves = torch.arange(FREQUENCIES, device=level.device, dtype=level.dtype) / 3
        angle = level[:, None] * (2 * math.pi / SPAN) * torch.exp2(octaves)
        features = torch.cat((angle.sin(), angle.cos()), dim=-1).to(self.inner.weight.dtype)
        return self.out(nn.functional.silu(self.inner(features)))[:, None]
