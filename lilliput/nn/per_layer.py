"""Hybrids: layers with mixers of several kinds, in a pattern that repeats with the depth.

    PerLayer(pattern=(HGRN2(heads=4), HGRN2(heads=4), GQA(heads=4, kv_heads=2, head_width=64)))

has two recurrent layers below each layer of attention.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, cast

from torch import Tensor, nn

from lilliput.base.errors import RecipeError
from lilliput.base.protocols import check_parts
from lilliput.nn.mixer import MixerSpec, SharedParameters


@dataclass(frozen=True, kw_only=True)
class PerLayer:
    """Layer n mixes by the n-th part of the pattern, which begins again at its end."""

    pattern: tuple[MixerSpec, ...]

    def __post_init__(self) -> None:
        if not self.pattern:
            raise RecipeError("the pattern has no mixer", where="PerLayer(pattern=)", hint="give two or more mixers")
        check_parts(self)

    def at(self, layer: int) -> MixerSpec:
        """Return the mixer of a layer (from 0)."""
        return self.pattern[layer % len(self.pattern)]

    def shared_parameters(self, width: int, layers: int) -> "SharedPerKind | None":
        """Return what the layers of each kind have in common, each kind by itself."""
        kinds = list(dict.fromkeys(map(self.at, range(layers))))
        members = [[layer for layer in range(layers) if self.at(layer) == kind] for kind in kinds]
        parts = [kind.shared_parameters(width, len(its)) for kind, its in zip(kinds, members, strict=True)]
        found = [(part, its) for part, its in zip(parts, members, strict=True) if part is not None]
        return SharedPerKind(layers, found) if found else None

    def build(self, width: int, layer: int) -> nn.Module:
        return self.at(layer).build(width, layer)

    def flops(self, width: int, length: int, layer: int) -> int:
        return self.at(layer).flops(width, length, layer)

    def state_entries(self, width: int, length: int, layer: int) -> int:
        return self.at(layer).state_entries(width, length, layer)


def mixer_at(spec: MixerSpec, layer: int) -> MixerSpec:
    """Return the mixer of a layer, of a hybrid or of a model whose layers are alike."""
    return spec.at(layer) if isinstance(spec, PerLayer) else spec


class SharedPerKind(nn.Module):
    """Parameters shared by layers of one kind, for each kind that shares any."""

    def __init__(self, layers: int, parts: Sequence[tuple[SharedParameters, list[int]]]):
        super().__init__()
        self.layers, self.members = layers, [members for _, members in parts]
        self.parts = nn.ModuleList(cast(nn.Module, part) for part, _ in parts)

    def forward(self) -> list[Tensor | None]:
        """Return the row of each layer, None for one that shares nothing."""
        rows: list[Tensor | None] = [None] * self.layers
        for part, members in zip(self.parts, self.members, strict=True):
            for layer, row in zip(members, part(), strict=True):
                rows[layer] = row
        return rows

    def grow_depth(self, shallow: Self, originals: Sequence[int], keep: bool) -> None:
        """See `SharedParameters`; each kind grows from the same kind."""
        for part, members, old, known in zip(self.parts, self.members, shallow.parts, shallow.members, strict=True):
            within = [known.index(originals[layer]) for layer in members]
            cast(SharedParameters, part).grow_depth(old, within, keep)  # type: ignore[arg-type]
