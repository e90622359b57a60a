"""The seam between a model and what mixes its positions: attention, a recurrence, or the next idea.

A mixer is three methods; its spec is a frozen dataclass in the same file. Shapes: B rows, L positions, D model width.
"""

from typing import Any, Protocol

from torch import Tensor, nn

State = Any
"""What a mixer carries from one position to the next: keys and values, or a recurrent state. A tuple of tensors."""


class Mixer(Protocol):
    """Mixes positions causally."""

    def mix(self, x: Tensor, segments: Tensor | None) -> Tensor:
        """Mix whole rows, whose states nobody wants: for training and evaluation.

        Args:
            x: normalised residual stream, [B, L, D].
            segments: document numbers [B, L]; positions of different documents do not see each other.

        Returns:
            what to add to the stream, [B, L, D].
        """
        ...

    def advance(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Mix the next positions of rows, going on from `state`.

        Args:
            x: normalised residual stream, [B, L, D].
            state: what the previous call returned, or None at the beginning of a row.

        Returns:
            what to add to the stream, [B, L, D], and the state after them.
        """
        ...

    def empty_state(self, rows: int) -> State:
        """The state before the first position of `rows` rows."""
        ...


class MixerSpec(Protocol):
    """The shape of a mixer, as recipes write it."""

    def build(self, width: int, layer: int) -> nn.Module:
        """A mixer for layer `layer` (from 0) of a model of width `width`; an `nn.Module` that is a `Mixer`."""
        ...

    def flops(self, width: int, length: int) -> int:
        """Forward floating-point operations a position, projections included, in rows of `length`."""
        ...

    def state_entries(self, width: int, length: int) -> int:
        """Numbers in the state of one row after `length` positions."""
        ...
