"""Adaptive norms (AdaLN, arXiv 2212.09748): what a branch of a layer reads and makes, as something tells it to.

    x = x + gate * branch(scale * norm(x) + shift)

A layer has such vectors for its mixer and for its feed-forward layer. Shapes: B rows, L positions, D width.
"""

from typing import NamedTuple

from torch import Tensor

VECTORS = 6
"""Number of vectors of a layer: shift, scale and gate of either branch."""


class Modulation(NamedTuple):
    """The vectors of a branch, [B, 1, D] each."""

    shift: Tensor
    scale: Tensor
    gate: Tensor

    def applied(self, normed: Tensor) -> Tensor:
        """Return what the branch reads, from the normed stream [B, L, D]."""
        return self.scale * normed + self.shift


class LayerModulation(NamedTuple):
    """The vectors of both branches."""

    mixer: Modulation
    ffn: Modulation


def layer_modulations(numbers: Tensor, layers: int) -> list[LayerModulation]:
    """Return the vectors of some layers from numbers [B, 1, layers * 6 D], of which zeros are layers as they are."""
    found = []
    for layer in numbers.chunk(layers, dim=-1):
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = layer.chunk(VECTORS, dim=-1)
        mixer, ffn = Modulation(shift, 1 + scale, 1 + gate), Modulation(ffn_shift, 1 + ffn_scale, 1 + ffn_gate)
        found.append(LayerModulation(mixer, ffn))
    return found
