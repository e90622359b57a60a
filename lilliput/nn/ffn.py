"""The seam of what transforms positions, and gated feed-forward layers.

As of mixers: an `FFN` is self-contained, and a `FusedFFN` says which product it begins with, so that the layer makes
that together with the norm before it. Shapes: B rows, L positions, D model width, I inner width.
"""

from dataclasses import dataclass
from math import inf
from typing import Protocol, get_args

from torch import Tensor, nn

from lilliput.base.spec import check_choice, check_range
from lilliput.nn.decoding_copy import weights
from lilliput.ops.linear import fused_linear
from lilliput.ops.swiglu import Activation, swiglu


class FFNSpec(Protocol):
    """A feed-forward layer as recipes write it."""

    @property
    def inner(self) -> int:
        """Width between the two projections."""
        ...

    def build(self, width: int) -> nn.Module:
        """An `nn.Module` that is a `FFN`."""
        ...


class FFN(Protocol):
    """Transforms each position by itself: an `nn.Module`."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return what to add to the stream, [B, L, D], from the normed stream [B, L, D]."""
        ...


class FusedFFN(FFN, Protocol):
    """One that begins with a product, and adds what it makes to the stream itself."""

    @property
    def in_weights(self) -> tuple[Tensor, ...]:
        """Return what the normed stream is multiplied by first, as of a `FusedMixer`."""
        ...

    def add_to(self, residual: Tensor, projected: Tensor, scale: Tensor | None) -> Tensor:
        """Return residual [B, L, D] + scale (a number; None for 1) times what it makes of the products [B, L, 2 I]."""
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
    square: Activation = "silu"
    """Part that is squared, as the name alone does not say: down(silu(gate x)^2 * up x), down((silu(gate x) * up x)^2)
    or down(relu(gate x)^2 * up x).
    """

    def __post_init__(self) -> None:
        check_range("SwiGLU2", 1, inf, inner=self.inner)
        check_choice("SwiGLU2", get_args(Activation), square=self.square)

    def build(self, width: int) -> nn.Module:
        return GatedFFN(width, self.inner, self.square)


class GatedFFN(nn.Module):
    """down(gated(gate x, up x)), without biases; what `square` names is squared, see `lilliput.ops.swiglu`."""

    def __init__(self, width: int, inner: int, square: Activation | None = None):
        super().__init__()
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.in_linears = "gate", "up"
        self.down = nn.Linear(inner, width, bias=False)
        self.square: Activation | None = square

    @property
    def in_weights(self) -> tuple[Tensor, ...]:
        return weights(self)

    def forward(self, x: Tensor) -> Tensor:
        return swiglu(fused_linear(x, *self.in_weights), self.down.weight, self.square)

    def add_to(self, residual: Tensor, projected: Tensor, scale: Tensor | None) -> Tensor:
        return swiglu(projected, self.down.weight, self.square, scale=scale, residual=residual)
