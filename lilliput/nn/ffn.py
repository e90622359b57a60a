"""Gated feed-forward layers. Shape: [B, L, D] -> [B, L, D] through an inner width."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lilliput.base.spec import check_choice, check_range
from lilliput.ops.project import projections


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
        return GatedFFN(width, self.inner, _silu)


@dataclass(frozen=True, kw_only=True)
class SwiGLU2:
    """SwiGLU with a square; that overflows fp16 beyond 255, so squares and products are made in fp32."""

    inner: int
    square: Literal["silu", "product", "relu"] = "silu"
    """What is squared, as the name alone does not say: down(silu(gate x)^2 * up x), down((silu(gate x) * up x)^2) or
    down(relu(gate x)^2 * up x)."""

    def __post_init__(self) -> None:
        check_range("SwiGLU2", 1, inf, inner=self.inner)
        check_choice("SwiGLU2", SQUARES, square=self.square)

    def build(self, width: int) -> nn.Module:
        return GatedFFN(width, self.inner, SQUARES[self.square])


def _silu(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


def _squared_silu(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(_wide(gate)).square() * up


def _squared_product(gate: Tensor, up: Tensor) -> Tensor:
    return (F.silu(_wide(gate)) * up).square()


def _squared_relu(gate: Tensor, up: Tensor) -> Tensor:
    return F.relu(_wide(gate)).square() * up


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


SQUARES = {"silu": _squared_silu, "product": _squared_product, "relu": _squared_relu}


class GatedFFN(nn.Module):
    """down(gated(gate x, up x)), without biases; `gated` is a product of the two."""

    def __init__(self, width: int, inner: int, gated: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)
        self.gated = gated

    def forward(self, x: Tensor) -> Tensor:
        gate, up = projections(x, self.gate.weight, self.up.weight)
        return self.down(self.gated(gate, up))
