"""HGRN2 (arXiv 2404.07904): a gated linear recurrence whose forget gate is also its write key, k = 1 - f.

    q = silu(W_q x)    f = sigmoid(W_f x [+ b])    k = 1 - f    v = W_i x
    S_t = diag(f_t) S_{t-1} + k_t (x) v_t    o_t = K^{-1/2} q_t^T S_t    y = W_o norm(o)

With lower bounds f = l + (1 - l) sigmoid(W_f x [+ b]), where l is the layer's row of nn/lower_bounds.py.

Shapes: B rows, L positions, D model width, H heads of width D / H for keys and values alike.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from lilliput.base.errors import RecipeError
from lilliput.base.spec import check_range
from lilliput.nn.lower_bounds import LowerBounds
from lilliput.nn.norm import Norm, NormSpec, RMSNorm
from lilliput.nn.rope import Nowhere, Rope
from lilliput.ops.gla import gated_scan
from lilliput.ops.hgrn2 import gates, kernels_take, recurrence
from lilliput.ops.linear import Product, multiplied
from lilliput.ops.rms_norm import parts


@dataclass(frozen=True, kw_only=True)
class HGRN2:
    """`heads` recurrent heads; the state of one row is heads x (D / heads)^2 numbers, whatever its length."""

    heads: int
    rope: Rope = Nowhere()
    """Rotation of queries and keys, after the gate has made the key. Channels that turn together and forget apart
    make a score depend on both positions, not on their distance alone."""
    rope_tie_gate: bool = False
    """Where queries and keys turn, the two channels of a pair forget alike, and scores depend on distance alone."""
    output_norm: NormSpec = RMSNorm()
    """Over the full width, before the output projection."""
    horizons: tuple[float, float] | None = None
    """Positions over which a channel forgets 1 - 1/e of what it held, at first: from the first to the last number,
    spread evenly in their logarithm over a head's channels, by a learned bias of the forget gate (the official code
    has one, the cards do not). None: no bias, and every channel begins by forgetting half at each position."""
    lower_bounds: bool = False
    """Whether forget gates have learned lower bounds that rise from layer to layer (nn/lower_bounds.py)."""

    def __post_init__(self) -> None:
        check_range("HGRN2", 1, math.inf, heads=self.heads)
        if self.rope_tie_gate and isinstance(self.rope, Nowhere):
            raise RecipeError(
                "gates cannot be tied where nothing turns",
                where="HGRN2(rope_tie_gate=True, rope=Nowhere())",
                hint="leave rope_tie_gate out, or give a rotation such as EvenLayers()",
            )
        if self.horizons and not 1 < self.horizons[0] <= self.horizons[1]:
            raise RecipeError(
                f"horizons of {self.horizons} positions do not rise from above 1",
                where="HGRN2(horizons=)",
                hint="give two numbers such as (2.0, 200.0), or None for no bias",
            )

    def shared(self, width: int, layers: int) -> LowerBounds | None:
        if self.lower_bounds and layers == 1:
            raise RecipeError(
                "the first layer has no lower bound, and there is no other",
                where="HGRN2(lower_bounds=True) with ModelSpec(layers=1)",
                hint="leave lower_bounds out, or give more layers",
            )
        return LowerBounds(width, layers) if self.lower_bounds else None

    def build(self, width: int, layer: int) -> nn.Module:
        if width % self.heads:
            raise RecipeError(
                f"a width of {width} cannot be split into {self.heads} heads",
                where="HGRN2(heads=) with ModelSpec(width=)",
                hint="choose heads so that it divides the width",
            )
        return HGRN2Mixer(self, width, layer)

    def flops(self, width: int, length: int) -> int:
        return 2 * 4 * width * width + 2 * 2 * width * (width // self.heads)  # write and read of the state

    def state_entries(self, width: int, length: int) -> int:
        return width * (width // self.heads)


class Recurrent(NamedTuple):
    """The state [B, H, K, V] in fp32, and how many positions made it (for the rotation)."""

    memory: Tensor
    position: int


class HorizonBias(nn.Module):
    """The bias b of the forget gates, with sigmoid(b) = 1 - 1 / horizon at first."""

    def __init__(self, width: int, heads: int, horizons: tuple[float, float]):
        super().__init__()
        self.heads, self.horizons = heads, horizons
        self.weight = nn.Parameter(torch.empty(width))

    def reset_parameters(self) -> None:
        first, last = (math.log(horizon) for horizon in self.horizons)
        spread = torch.linspace(first, last, len(self.weight) // self.heads).exp()
        with torch.no_grad():
            self.weight.copy_((spread - 1).log().repeat(self.heads))


class HGRN2Mixer(nn.Module):
    """The layer above; gates, state and norm in fp32, products in the stream's autocast precision."""

    def __init__(self, spec: HGRN2, width: int, layer: int):
        super().__init__()
        self.spec = spec
        self.turns = spec.rope.applies(layer)
        self.query = nn.Linear(width, width, bias=False)
        self.forget = nn.Linear(width, width, bias=False)
        self.input = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.forget_bias = HorizonBias(width, spec.heads, spec.horizons) if spec.horizons else None
        self.norm = spec.output_norm.build(width)

    @property
    def weights(self) -> tuple[Tensor, ...]:
        return self.query.weight, self.forget.weight, self.input.weight

    def mix(self, projected: Tensor, segments: Tensor | None, bound: Tensor | None = None) -> Product:
        mixed = recurrence(projected, self.spec.heads, bound=bound, segments=segments, **self._settings)
        return self._normed(mixed)

    def advance(
        self, projected: Tensor, state: Recurrent | None, bound: Tensor | None = None
    ) -> tuple[Product, Recurrent]:
        memory, first = (None, 0) if state is None else state
        scanned = gates(projected, self.spec.heads, bound=bound, first=first, **self._settings)
        mixed, memory = gated_scan(*scanned, memory)
        return self._normed(mixed.flatten(-2)), Recurrent(memory, first + projected.shape[1])

    def _normed(self, mixed: Tensor) -> Product:
        norm = cast(Norm, self.norm)
        normed, gain = parts(mixed, norm.gain, norm.eps)
        return Product(normed, multiplied(self.output.weight, gain))

    @property
    def waits(self) -> bool:
        """Unless the kernels run, the scan reads back from a device how far channels decay."""
        width = self.query.weight.shape[0] // self.spec.heads
        rope = self.spec.rope
        plain = not self.spec.lower_bounds and not (self.turns and (self.spec.rope_tie_gate or rope.pairs != "half"))
        return not (plain and kernels_take(width))

    @property
    def _settings(self) -> dict[str, Any]:
        """How the projection becomes what the scan reads."""
        bias, rope = None if self.forget_bias is None else self.forget_bias.weight, self.spec.rope
        turn = {"theta": rope.theta, "pairs": rope.pairs, "tie": self.spec.rope_tie_gate} if self.turns else {}
        return {"bias": bias} | turn

    def empty_state(self, rows: int) -> Recurrent:
        head = self.query.weight.shape[0] // self.spec.heads
        weight = self.query.weight
        wide = weight.dtype if weight.dtype == torch.float64 else torch.float32
        return Recurrent(torch.zeros(rows, self.spec.heads, head, head, dtype=wide, device=weight.device), 0)
