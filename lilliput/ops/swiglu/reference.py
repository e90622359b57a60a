"""Products of a gate and what it lets through, which differ in what is squared.

A square overflows fp16 beyond 255, so squares, and products with them, are made in fp32.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from lilliput.ops.softcap import to_fp32

Activation = Literal["silu", "product", "relu"]
"""silu(gate)^2 * up, (silu(gate) * up)^2 or relu(gate)^2 * up."""


def gated_activation(gate: Tensor, up: Tensor, activation: Activation | None = None) -> Tensor:
    """silu(gate) * up (arXiv 2002.05202) in the dtype of both [...]; with a square in fp32, or fp64 for fp64."""
    if activation is None:
        return F.silu(gate) * up
    if activation == "product":
        return (F.silu(to_fp32(gate)) * up).square()
    function = F.relu if activation == "relu" else F.silu
    return function(to_fp32(gate)).square() * up
