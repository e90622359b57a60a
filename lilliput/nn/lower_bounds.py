"""Lower bounds of forget gates: deep layers must remember longer (HGRN, arXiv 2311.04823; HGRN2, arXiv 2404.07904).

    share = softmax of the logits over layers    bound_l = share_1 + ... + share_l

Layer 0 has none, bounds rise with the layers and stay below 1; at first bound_l = l / N.

Shapes: N layers, D model width.
"""

from collections.abc import Sequence
from math import log1p
from typing import Self

import torch
from torch import Tensor, nn


class LowerBounds(nn.Module):
    """The bounds of all layers, from one matrix of logits."""

    def __init__(self, width: int, layers: int):
        super().__init__()
        self.bound_logits = nn.Parameter(torch.empty(layers, width))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.bound_logits)

    def forward(self) -> Tensor:
        """Bounds [N, D]."""
        share = torch.softmax(self.bound_logits, dim=0)
        return (share.cumsum(dim=0) - share[0]).clamp(max=1 - torch.finfo(share.dtype).eps)

    def grow_depth(self, shallow: Self, originals: Sequence[int], keep: bool) -> None:
        """See `SharedParameters`. Logits are repeated with their layers, and all bounds rise over the new depth.

        To keep those of the first layers, layer 0 divides its share, which is in no bound, with all new layers.
        """
        old = shallow.bound_logits
        with torch.no_grad():
            self.bound_logits.copy_(old[list(originals)])
            if keep:
                fresh = len(originals) - len(old)
                self.bound_logits[[0, *range(len(old), len(originals))]] = old[0] - log1p(fresh)
