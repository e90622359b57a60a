"""Gated feed-forward layers. Shape: [B, L, D] -> [B, L, D] through an inner width."""

from dataclasses import dataclass
from math import inf
from typing import Protocol, get_args

from torch import Tensor, nn

from lilliput.base.spec import check_choice, check_range
from lilliput.ops.feed_forward import Square, feed_forward


class FFNSpec(Protocol):
    """A feed-forward layer as recipes write it."""

    @property
    def inner(self) -> int:
        """Width between the two projections."""
        ...

    def build(self, width: int) -> nn.Module:
        """A layer [B, L, width] -> [B, L, width], `gain` and `times` as in `Mixer.mix`, added to `onto` or nothing."""
        ...


@dataclass(frozen=True, kw_only=True)
class SwiGLU:
    """down(silu(gate x) * up x), arXiv 2002.05202."""

    inner: int

    def __post_init__(self) -> None:
        check_range("SwiGLU", 1, inf, inner=self.inner)

    def build(self, width: int) -> nn.Module:
        return GatedFFN(width, self.inner)


@dataclass(frozen=True, kw_only=True)
class SwiGLU2:
    """SwiGLU with a square; that overflows fp16 beyond 255, so squares and products are made in fp32."""

    inner: int
    square: Square = "silu"
    """What is squared, as the name alone does not say: down(silu(gate x)^2 * up x), down((silu(gate x) * up x)^2) or
    down(relu(gate x)^2 * up x)."""

    def __post_init__(self) -> None:
        check_range("SwiGLU2", 1, inf, inner=self.inner)
        check_choice("SwiGLU2", get_args(Square), square=self.square)

    def build(self, width: int) -> nn.Module:
        return GatedFFN(width, self.inner, self.square)


class GatedFFN(nn.Module):
    """down(gated(gate x, up x)), without biases; what `square` names is squared, see `lilliput.ops.feed_forward`."""

    def __init__(self, width: int, inner: int, square: Square | None = None):
        super().__init__()
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)
        self.square: Square | None = square

    def forward(
        self, x: Tensor, *, gain: Tensor | None = None, times: Tensor | None = None, onto: Tensor | None = None
    ) -> Tensor:
        weights = self.gate.weight, self.up.weight, self.down.weight
        return feed_forward(x, *weights, self.square, gain=gain, times=times, onto=onto)
