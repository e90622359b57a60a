"""Gated feed-forward layers. Shape: [B, L, D] -> [B, L, D] through an inner width."""

from dataclasses import dataclass
from math import inf
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lilliput.base.spec import check_range
from lilliput.ops.project import project


class FFNSpec(Protocol):
    """A feed-forward layer as recipes write it."""

    @property
    def inner(self) -> int:
        """Width between the two projections."""
        ...

    def build(self, width: int) -> nn.Module:
        """A layer [B, L, width] -> [B, L, width]."""
        ...


@dataclass(frozen=True, kw_only=True)
class SwiGLU:
    """down(silu(gate x) * up x), arXiv 2002.05202."""

    inner: int

    def __post_init__(self) -> None:
        check_range("SwiGLU", 1, inf, inner=self.inner)

    def build(self, width: int) -> nn.Module:
        return GatedFFN(width, self.inner, F.silu)


@dataclass(frozen=True, kw_only=True)
class SwiGLU2:
    """down(silu(gate x)^2 * up x); the square overflows fp16 beyond 255, so the product is made in fp32."""

    inner: int

    def __post_init__(self) -> None:
        check_range("SwiGLU2", 1, inf, inner=self.inner)

    def build(self, width: int) -> nn.Module:
        return GatedFFN(width, self.inner, _squared_silu)


def _squared_silu(x: Tensor) -> Tensor:
    return F.silu(x if x.dtype == torch.float64 else x.float()).square()


class GatedFFN(nn.Module):
    """down(activation(gate x) * up x), without biases."""

    def __init__(self, width: int, inner: int, activation):
        super().__init__()
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        gate, up = project(x, self.gate.weight, self.up.weight).chunk(2, dim=-1)
        return self.down(self.activation(gate) * up)
