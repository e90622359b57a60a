"""The layers whose mixers are checked: of a small model, with weights that hide nothing."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lilliput.check.result import place_of
from lilliput.model import LanguageModel, ModelSpec
from lilliput.nn.mixer import MixerSpec, State
from lilliput.nn.per_layer import mixer_at

EACH = 2
"""Layers of a kind that are checked: what turns in every second layer is among them."""


@dataclass(frozen=True, kw_only=True)
class MixerLayer:
    """The mixer of one layer, with what it shares with others."""

    spec: MixerSpec
    model: LanguageModel
    index: int

    @property
    def module(self) -> nn.Module:
        """The mixer itself."""
        return self.model.layers[self.index].mixer  # type: ignore[return-value]

    @property
    def width(self) -> int:
        """The width of the stream."""
        return self.model.spec.width

    @property
    def shared(self) -> tuple[Tensor, ...]:
        """The layer's row of what mixers share, made again."""
        row = None if self.model.shared is None else self.model.shared()[self.index]
        return () if row is None else (row,)

    @property
    def is_rotary(self) -> bool:
        """Say whether its spec turns by the positions of a row: where channels decay alone, scores then see them."""
        rope = getattr(self.spec, "rope", None)
        return rope is not None and rope.applies(self.index)

    def whole(self, x: Tensor, document_ids: Tensor | None = None) -> Tensor:
        """Return what whole rows give."""
        return self.module(x, document_ids, *self.shared)

    def decode(self, x: Tensor, state: State, positions: list[int], lengths: list[int]) -> Tensor:
        """Return what the next positions give, and change the state."""
        return self.module.decode(x, state, torch.tensor(positions), torch.tensor(lengths), *self.shared)  # type: ignore[operator]

    def empty_state(self, rows: int, capacity: int) -> State:
        """Return the state before the first position."""
        return self.module.empty_state(rows, capacity)  # type: ignore[operator]

    def stream(self, rows: int, length: int, seed: int = 0) -> Tensor:
        """Return a normed stream of random numbers, [B, L, D]."""
        return torch.randn(rows, length, self.width, generator=torch.Generator().manual_seed(seed))

    def where(self, method: str) -> str:
        """Return where a method of the mixer is written."""
        return f"{place_of(self.module, method)}, layer {self.index}"


def layers_by_kind(spec: ModelSpec) -> Mapping[MixerSpec, list[MixerLayer]]:
    """Return the first layers of each kind of mixer that a model has."""
    model = scattered(spec.build(seed=0))
    found: dict[MixerSpec, list[MixerLayer]] = {}
    for index in range(spec.layers):
        kind = mixer_at(spec.mixer, index)
        found.setdefault(kind, []).append(MixerLayer(spec=kind, model=model, index=index))
    return {kind: layers[:EACH] for kind, layers in found.items()}


@torch.no_grad()
def scattered(model: LanguageModel) -> LanguageModel:
    """The model with every weight away from where it begins: a matrix of zeros would hide what lies before it."""
    draw = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=draw)
        if parameter.ndim < 2:
            parameter.add_(0.05 * noise)
        else:
            spread = parameter.square().mean().sqrt()
            matrix = parameter / spread if spread > 0 else noise
            parameter.copy_(matrix / parameter.shape[-1] ** 0.5)
    return model
