"""The seam between a model and what mixes its positions: attention, a recurrence, or the next idea.

The layer itself multiplies the normed stream by a mixer's first weights, and what the mixer makes of that by its last
one: both products are made together with what is around them (`ops.add_rms_norm_linear`). What lies between is the
mixer, three methods, and a fourth for objectives that denoise; its spec is a frozen dataclass in the same file.

Shapes: B rows, L positions, D model width, E channels of the projection.
"""

from collections.abc import Sequence
from typing import Any, Protocol, Self

from torch import Tensor, nn

from lilliput.ops.linear import LinearOutput

State = Any
"""What a mixer carries from one position to the next: keys and values, or a recurrent state. A tuple of tensors."""


class Mixer(Protocol):
    """Mixes positions causally."""

    @property
    def in_weights(self) -> tuple[Tensor, ...]:
        """What the normed stream is multiplied by first, [E_i, D] each."""
        ...

    def mix(self, projected: Tensor, document_ids: Tensor | None, *shared: Tensor) -> LinearOutput:
        """Mix whole rows, whose states nobody wants: for training and evaluation.

        Args:
            projected: the products, side by side, [B, L, sum of E_i].
            document_ids: document numbers [B, L]; positions of different documents do not see each other.
            shared: the layer's row of what all layers have in common; nothing where they have nothing in common.

        Returns:
            what to add to the stream: a product [B, L, D] that is still to be made.
        """
        ...

    def decode(self, projected: Tensor, state: State | None, *shared: Tensor) -> tuple[LinearOutput, State]:
        """Mix the next positions of rows, going on from `state`.

        Args:
            projected, shared: as in `mix`.
            state: what the previous call returned, or None at the beginning of a row.

        Returns:
            what to add to the stream, as in `mix`, and the state after them.
        """
        ...

    def empty_state(self, rows: int) -> State:
        """The state before the first position of `rows` rows."""
        ...

    @property
    def host_sync(self) -> bool:
        """Whether `mix` (or `mix_pair`) reads numbers back from a device, so that it cannot be recorded in a graph."""
        ...


class PairMixer(Mixer, Protocol):
    """Mixes a noised stream beside a clean one too: what `LanguageModel.forward_pair` asks for, and nothing else."""

    def mix_pair(
        self,
        clean: Tensor,
        noisy: Tensor,
        document_ids: Tensor | None,
        target_document_ids: Tensor | None,
        *shared: Tensor,
    ) -> tuple[LinearOutput, LinearOutput]:
        """Mix whole rows of a clean stream, and let a noised stream of the same rows read them.

        The noised position j stands for the target at j + 1. It gets what `mix` would give at position j + 1 of a row
        that holds the clean positions up to j and then itself: it sees the clean positions i <= j of its own
        document, where `document_ids[i] == target_document_ids[j]`, and itself, and no other noised position. Where
        its target begins a document, it sees itself alone. Clean positions get what `mix` gives them.

        Args:
            clean, noisy: the products of either stream, side by side, [B, L, sum of E_i] each.
            document_ids: as in `mix`.
            target_document_ids: document numbers of the targets [B, L]; both or none of the two are given.
            shared: as in `mix`.

        Returns:
            what to add to the clean stream, and what to add to the noised one, as in `mix`.
        """
        ...


class SharedParameters(Protocol):
    """Parameters that the mixers of all layers read: an `nn.Module` of the model.

    A layer is handed its row and does not look it up: compiled layers would be compiled once for each place.
    """

    def __call__(self) -> Tensor:
        """One row for each layer, [layers, ...]."""
        ...

    def grow_depth(self, shallow: Self, originals: Sequence[int], keep: bool) -> None:
        """Take over the values of a shallower model.

        Args:
            shallow: that model's.
            originals: which of its layers each layer is made from.
            keep: whether layers that were there (the first ones) must read what they read before.
        """
        ...


class MixerSpec(Protocol):
    """The shape of a mixer, as recipes write it."""

    def shared_parameters(self, width: int, layers: int) -> SharedParameters | None:
        """What all layers of a model have in common; None for nothing."""
        ...

    def build(self, width: int, layer: int) -> nn.Module:
        """A mixer for layer `layer` (from 0) of a model of width `width`; an `nn.Module` that is a `Mixer`."""
        ...

    def flops(self, width: int, length: int) -> int:
        """Forward floating-point operations a position, projections included, in rows of `length`."""
        ...

    def state_entries(self, width: int, length: int) -> int:
        """Numbers in the state of one row after `length` positions."""
        ...
