"""Which layers turn their heads by position (rotary embedding, arXiv 2104.09864; `ops/rotate.py` turns them)."""

from dataclasses import dataclass
from typing import Protocol


class Rope(Protocol):
    """Which layers turn, and how fast, as recipes write it."""

    @property
    def theta(self) -> float:
        """Base of the frequencies."""
        ...

    def applies(self, layer: int) -> bool:
        """Whether layer `layer` (from 0) turns its queries and keys."""
        ...


@dataclass(frozen=True, kw_only=True)
class Everywhere:
    """Rotation in every layer."""

    theta: float = 10_000.0

    def applies(self, layer: int) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class EvenLayers:
    """Rotation in layers 0, 2, 4, ...; the others see no positions."""

    theta: float = 10_000.0

    def applies(self, layer: int) -> bool:
        return layer % 2 == 0


@dataclass(frozen=True, kw_only=True)
class Nowhere:
    """No rotation: the mixer itself knows the order."""

    theta: float = 10_000.0

    def applies(self, layer: int) -> bool:
        return False
