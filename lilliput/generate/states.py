"""The states of a model's layers for several rows: what all of them can do, as each is tensors with rows first."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from lilliput.base.errors import LilliputError
from lilliput.generate.dtypes import STATES
from lilliput.model import LanguageModel
from lilliput.nn.mixer import State

SLOTS = 128
"""Least capacity, and what all others are multiples of; see `RowStates.rounded`."""


class RowStates:
    """The states of rows of one model, with room for more positions as they are needed.

    Args:
        model: whose layers.
        rows: of the batch.
        positions: that each row has room for, at least.
        dtype: one of `dtypes.STATES`, that all of them are stored in; None for what they are computed in.

    Raises:
        LilliputError: states cannot be stored in that dtype.
    """

    def __init__(self, model: LanguageModel, rows: int, positions: int, dtype: torch.dtype | None = None):
        if dtype is not None and dtype not in STATES.values():
            raise LilliputError(
                f"states cannot be stored in {dtype!r:.80}",
                where="state_dtype",
                hint=f"give one of {', '.join(map(str, STATES.values()))}, or None for what they are computed in",
            )
        self._model, self._rows, self._dtype = model, rows, dtype
        self.capacity = self.rounded(positions)
        self._views: dict[tuple[int, int], list[State]] = {}
        with torch.inference_mode():
            self.layers = _empty(model, rows, self.capacity, dtype)

    def empty(self, rows: int, positions: int) -> "RowStates":
        """Return states of other rows of the same model, stored as these are, before their first position."""
        return RowStates(self._model, rows, positions, self._dtype)

    def fit(self, positions: int) -> None:
        """Have room for so many positions: twice as many as before, or more, where there were too few."""
        if positions > self.capacity:
            grown = self.empty(self._rows, max(positions, 2 * self.capacity))
            every = range(self._rows)
            grown.copy_rows(every, self, every)
            self.capacity, self.layers, self._views = grown.capacity, grown.layers, {}

    @property
    def bytes(self) -> int:
        """Return the bytes of all tensors."""
        return sum(tensor.nbytes for state in self.layers for tensor in state.values())

    @staticmethod
    def rounded(positions: int) -> int:
        """Return the slots that so many positions are given: at most a quarter more beyond a few, of few sizes."""
        unit = max(SLOTS, 1 << max(0, (positions - 1).bit_length() - 3))
        return -(-positions // unit) * unit

    def view(self, rows: int, positions: int) -> list[State]:
        """The states of the first rows as far as their first positions: what a step reads and changes in place.

        Attention then looks at few slots more than the longest row has filled.
        """
        key = rows, self.rounded(positions)
        if key not in self._views:
            shapes = self._shapes(key[1])
            self._views = {
                key: [
                    {name: tensor[(slice(rows), *shape[name])] for name, tensor in state.items()}
                    for state, shape in zip(self.layers, shapes, strict=True)
                ]
            }
        return self._views[key]

    def slots(self, view: Sequence[State]) -> Iterator[tuple[Tensor, int]]:
        """Yield the tensors of a view whose size depends on positions, each with the axis of its slots."""
        few, more = (self._model.empty_states(0, positions) for positions in (SLOTS, 2 * SLOTS))
        for state, small, large in zip(view, few, more, strict=True):
            for name, tensor in state.items():
                sizes = zip(small[name].shape, large[name].shape, strict=True)
                yield from ((tensor, axis) for axis, (one, other) in enumerate(sizes) if one != other)

    @property
    def can_be_cut(self) -> bool:
        """Return whether the state after fewer positions is a part of that after more, as of attention alone."""
        return sum(1 for _ in self.slots(self.layers)) == sum(map(len, self.layers))

    @torch.inference_mode()
    def copy_rows(self, rows: Sequence[int], other: "RowStates", others: Sequence[int]) -> None:
        """Overwrite rows with rows of another batch, as far as both have room; one taken several times is forked."""
        copy_rows(self.layers, rows, other.layers, others)

    def row(self, index: int, positions: int | None = None) -> dict[str, Tensor]:
        """Return copies of the state of one row, `<layer>/<entry>`: to save, or to continue later.

        Args:
            index: which row.
            positions: how many it has read; None for all that it has room for.
        """
        shapes = self._shapes(self.capacity if positions is None else positions)
        return {
            f"{layer}/{name}": tensor[(index, *shape)].clone()
            for layer, (state, slots) in enumerate(zip(self.layers, shapes, strict=True))
            for name, tensor in state.items()
            for shape in (slots[name],)
        }

    @torch.inference_mode()
    def load_row(self, index: int, tensors: Mapping[str, Tensor], positions: int | None = None) -> None:
        """Overwrite one row with what `row` returned, of states of the same capacity or a smaller one.

        Args:
            index: which row.
            tensors: what `row` returned.
            positions: how many of them to take, where states can be cut; None for all.
        """
        shapes = None if positions is None else self._shapes(positions)
        for layer, state in enumerate(self.layers):
            for name, tensor in state.items():
                given = tensors[f"{layer}/{name}"]
                if shapes is not None:
                    given = given[shapes[layer][name]]
                tensor[(index, *map(slice, given.shape))] = given.to(tensor)

    def _shapes(self, positions: int) -> list[dict[str, tuple[slice, ...]]]:
        """Return the part of each entry's axes after the rows that so many positions take."""
        empty = self._model.empty_states(0, positions)
        return [{name: tuple(map(slice, tensor.shape[1:])) for name, tensor in state.items()} for state in empty]


def _empty(model: LanguageModel, rows: int, capacity: int, dtype: torch.dtype | None) -> list[State]:
    """Return the states before the first position; those of all rows are never there in another dtype."""
    if dtype is None:
        return model.empty_states(rows, capacity)
    return [
        {
            name: one.to(dtype if one.is_floating_point() else one.dtype).repeat(rows, *[1] * (one.ndim - 1))
            for name, one in state.items()
        }
        for state in model.empty_states(1, capacity)
    ]


def copy_rows(layers: Sequence[State], rows: Sequence[int], others: Sequence[State], taken: Sequence[int]) -> None:
    """Overwrite rows of the states of layers with rows of others, as far as both have room.

    Args:
        layers: the states of each layer, changed in place.
        rows: of them.
        others: the states of each layer of another batch.
        taken: its rows, one for each of `rows`; one that is taken several times is forked.
    """
    to, source = torch.tensor(list(rows)), torch.tensor(list(taken))
    for new, old in zip(layers, others, strict=True):
        for name, tensor in new.items():
            slots = tuple(slice(min(sizes)) for sizes in zip(tensor.shape[1:], old[name].shape[1:], strict=True))
            device = tensor.device
            tensor[(to.to(device), *slots)] = old[name][(source.to(device), *slots)]
