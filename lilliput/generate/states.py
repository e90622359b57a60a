"""The states of a model's layers for several rows: what all of them can do, as each is tensors with rows first."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lilliput.model import LanguageModel
from lilliput.nn.mixer import State

SLOTS = 128
"""Capacity is a multiple of it, so that few rows need another one soon."""


class RowStates:
    """The states of rows of one model, with room for more positions as they are needed.

    Args:
        model: whose layers.
        rows: of the batch.
        positions: that each row has room for, at least.
    """

    def __init__(self, model: LanguageModel, rows: int, positions: int):
        self._model, self._rows = model, rows
        self.capacity = -(-positions // SLOTS) * SLOTS
        with torch.inference_mode():
            self.layers = model.empty_states(rows, self.capacity)

    def fit(self, positions: int) -> None:
        """Have room for so many positions: twice as many as before, or more, where there were too few."""
        if positions > self.capacity:
            grown = RowStates(self._model, self._rows, max(positions, 2 * self.capacity))
            every = range(self._rows)
            grown.copy_rows(every, self, every)
            self.capacity, self.layers = grown.capacity, grown.layers

    @torch.inference_mode()
    def copy_rows(self, rows: Sequence[int], other: "RowStates", others: Sequence[int]) -> None:
        """Overwrite rows with rows of another batch, of no larger capacity; one taken several times is forked."""
        to, source = torch.tensor(list(rows)), torch.tensor(list(others))
        for new, old in zip(self.layers, other.layers, strict=True):
            for name, tensor in new.items():
                slots = tuple(slice(0, size) for size in old[name].shape[1:])
                tensor[(to.to(tensor.device), *slots)] = old[name][source.to(tensor.device)]

    def row(self, index: int) -> dict[str, Tensor]:
        """Return copies of the state of one row, `<layer>/<entry>`: to save, or to continue later."""
        return {f"{layer}/{name}": tensor[index].clone() for layer, name, tensor in self._entries()}

    @torch.inference_mode()
    def load_row(self, index: int, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite one row with what `row` returned, of states of the same capacity."""
        for layer, name, tensor in self._entries():
            tensor[index] = tensors[f"{layer}/{name}"].to(tensor)

    def _entries(self) -> list[tuple[int, str, Tensor]]:
        layers: list[State] = self.layers
        return [(layer, name, tensor) for layer, state in enumerate(layers) for name, tensor in state.items()]
