"""Which layers turn their heads by position (rotary embedding, arXiv 2104.09864; `ops/rope.py` turns them)."""

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from lilliput.base.spec import check_choice
from lilliput.ops.rope import LAYOUTS, Layout

RotaryLayers = Literal["all", "even"]


class Rope(Protocol):
    """Which layers turn, and how fast, as recipes write it."""

    @property
    def theta(self) -> float:
        """Base of the frequencies."""
        ...

    @property
    def layout(self) -> Layout:
        """Which channels of a head turn together."""
        ...

    def applies(self, layer: int) -> bool:
        """Return whether layer `layer` (from 0) turns its queries and keys."""
        ...


@dataclass(frozen=True, kw_only=True)
class RoPE:
    """Rotary embedding, in every layer or in layers 0, 2, 4, ...: then the others see no positions."""

    theta: float = 10_000.0
    layout: Layout = "half"
    """Channel j turns with j + D/2, or (`interleaved`) 2j with 2j + 1; the fused kernels turn halves only."""
    layers: RotaryLayers = "all"

    def __post_init__(self) -> None:
        check_choice("RoPE", LAYOUTS, layout=self.layout)
        check_choice("RoPE", get_args(RotaryLayers), layers=self.layers)

    def applies(self, layer: int) -> bool:
        return self.layers == "all" or layer % 2 == 0


@dataclass(frozen=True, kw_only=True)
class NoPE:
    """No rotation: the mixer itself knows the order."""

    theta: float = 10_000.0

    @property
    def layout(self) -> Layout:
        return "half"

    def applies(self, layer: int) -> bool:
        return False
