"""The seam between a model and what mixes its positions: attention, a recurrence, or the next idea.

A `Mixer` is self-contained: it gets the normed stream and returns what is added to it. One whose first operation is a
product and whose last one is a product can say so (`FusedMixer`); the layer then makes both together with what is
around them (`ops.add_rms_norm_linear`), which is faster, and the mixer is what lies between. The spec is a frozen
dataclass in the same file.

Shapes: B rows, L positions, D model width, E channels of the projection.
"""

from collections.abc import Sequence
from typing import Protocol, Self

from torch import Tensor, nn

from lilliput.ops.linear import LinearOutput

State = dict[str, Tensor]
"""State of a mixer between positions, by name: keys and values, or a recurrent state. Rows come first,
so that copying, forking and saving a row is the same for every mixer."""


class Mixer(Protocol):
    """Mixes positions causally: an `nn.Module`.

    One that has no `host_sync`, or a true one, may read numbers back from a device, and is not captured in a CUDA
    graph.
    """

    def __call__(self, x: Tensor, document_ids: Tensor | None, *shared: Tensor) -> Tensor:
        """Mix whole rows without keeping states: for training and evaluation.

        Args:
            x: the normed stream [B, L, D].
            document_ids: document numbers [B, L]; positions of different documents do not see each other.
            shared: the layer's row of what layers have in common; nothing where they have nothing in common.

        Returns:
            what to add to the stream, [B, L, D].
        """
        ...

    def empty_state(self, rows: int, capacity: int) -> State:
        """Return the state before the first position of `rows` rows that will have at most `capacity` positions."""
        ...

    def decode(self, x: Tensor, state: State, positions: Tensor, lengths: Tensor, *shared: Tensor) -> Tensor:
        """Mix the next positions of rows, and change `state` in place to the one after them.

        Args:
            x: the normed stream of the next positions [B, L, D]; rows are padded on the right.
            state: of all earlier positions; of a row at position 0, as `empty_state` gave it. Its floating-point
                tensors may be stored in another dtype (`Engine(state_dtype=)`): what is computed with them is
                computed as if they were not, and rounded when it is written.
            positions: of the first one of x in each row, [B] int64; positions + L is at most the capacity.
            lengths: how many positions of each row are no padding, [B] int64, from 0 to L. Padding changes nothing
                that a later position of its row can see.
            shared: as above.

        Returns:
            what to add to the stream, [B, L, D]; anything where there is padding.
        """
        ...


class FusedMixer(Mixer, Protocol):
    """A mixer whose ends are products, so that a layer can make them together with what is around them."""

    @property
    def in_weights(self) -> tuple[Tensor, ...]:
        """Return what the normed stream is multiplied by first, [E_i, D] each."""
        ...

    def mix(self, projected: Tensor, document_ids: Tensor | None, *shared: Tensor) -> LinearOutput:
        """Mix whole rows between the two products.

        Args:
            projected: the products, side by side, [B, L, sum of E_i].
            document_ids, shared: as of the mixer itself.

        Returns:
            what to add to the stream: a product [B, L, D] that is still to be made.
        """
        ...


class PairMixer(FusedMixer, Protocol):
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
    """Parameters that the mixers of several layers read: an `nn.Module` of the model.

    A layer is handed its row and does not look it up: compiled layers would be compiled once for each index.
    """

    def __call__(self) -> Sequence[Tensor | None]:
        """One row for each layer that shares them: a tensor [layers, ...], or a list, with None for nothing."""
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
        """Return what `layers` layers of this mixer have in common; None for nothing."""
        ...

    def build(self, width: int, layer: int) -> nn.Module:
        """Return a mixer for layer `layer` (from 0) of a model of width `width`; an `nn.Module` that is a `Mixer`."""
        ...

    def flops(self, width: int, length: int, layer: int) -> int:
        """Forward floating-point operations a position of a layer, projections included, in rows of `length`."""
        ...

    def state_entries(self, width: int, length: int, layer: int) -> int:
        """Numbers in the state of one row of a layer after `length` positions."""
        ...
