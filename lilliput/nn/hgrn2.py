"""HGRN2 (arXiv 2404.07904): a gated linear recurrence whose forget gate is also its write key, k = 1 - f.

    q = silu(W_q x)    f = sigmoid(W_f x [+ b])    k = 1 - f    v = W_i x
    S_t = diag(f_t) S_{t-1} + k_t (x) v_t    o_t = K^{-1/2} q_t^T S_t    y = W_o norm(o)

With lower bounds f = l + (1 - l) sigmoid(W_f x [+ b]), where l is the layer's row of nn/lower_bounds.py.

Shapes: B rows, L positions, D model width, H heads of width D / H for keys and values alike.
"""

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from lilliput.base.errors import RecipeError
from lilliput.base.spec import check_range
from lilliput.nn.decoding_copy import weights
from lilliput.nn.lower_bounds import LowerBounds
from lilliput.nn.mixer import State
from lilliput.nn.norm import Norm, NormSpec, RMSNorm
from lilliput.nn.rope import NoPE, Rope
from lilliput.ops.gla.step import gla_next
from lilliput.ops.hgrn2 import activations, has_kernels_for, hgrn2
from lilliput.ops.hgrn2.pair import hgrn2_pair
from lilliput.ops.linear import LinearOutput, fused_linear, scale_weight
from lilliput.ops.rms_norm import norm_for_linear

STATE = "recurrent_state"
"""The entry of the state."""


@dataclass(frozen=True, kw_only=True)
class HGRN2:
    """`heads` recurrent heads; the state of one row is heads x (D / heads)^2 numbers, whatever its length."""

    heads: int
    rope: Rope = NoPE()
    """Rotation of queries and keys, after the gate has made the key. Channels that turn together and forget apart
    make a score depend on both positions, not on their distance alone."""
    rope_tie_gate: bool = False
    """Tie the forget gates of a rotated pair, so that scores depend on distance alone."""
    output_norm: NormSpec = RMSNorm()
    """Over the full width, before the output projection."""
    forget_timescales: tuple[float, float] | None = None
    """Positions over which a channel forgets 1 - 1/e of what it held, at first: from the first to the last number,
    spread evenly in their logarithm over a head's channels, by a learned bias of the forget gate (the official code
    has one, the cards do not). None: no bias, and every channel begins by forgetting half at each position."""
    lower_bounds: bool = False
    """True if forget gates have learned lower bounds that rise from layer to layer (nn/lower_bounds.py)."""

    def __post_init__(self) -> None:
        check_range("HGRN2", 1, math.inf, heads=self.heads)
        if self.rope_tie_gate and isinstance(self.rope, NoPE):
            raise RecipeError(
                "rope_tie_gate needs a rotary embedding",
                where="HGRN2(rope_tie_gate=True, rope=NoPE())",
                hint="leave rope_tie_gate out, or give rope=RoPE()",
            )
        if self.forget_timescales and not 1 < self.forget_timescales[0] <= self.forget_timescales[1]:
            raise RecipeError(
                f"forget_timescales {self.forget_timescales} must rise from above 1",
                where="HGRN2(forget_timescales=)",
                hint="give two numbers such as (2.0, 200.0), or None for no bias",
            )

    def shared_parameters(self, width: int, layers: int) -> LowerBounds | None:
        if self.lower_bounds and layers == 1:
            raise RecipeError(
                "lower bounds need a second layer: the first has none",
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

    def flops(self, width: int, length: int, layer: int) -> int:
        return 2 * 4 * width * width + 2 * 2 * width * (width // self.heads)  # write and read of the state

    def state_entries(self, width: int, length: int, layer: int) -> int:
        return width * (width // self.heads)


class ForgetBias(nn.Module):
    """The bias b of the forget gates, with sigmoid(b) = 1 - 1 / horizon at first."""

    def __init__(self, width: int, heads: int, timescales: tuple[float, float]):
        super().__init__()
        self.heads, self.timescales = heads, timescales
        self.weight = nn.Parameter(torch.empty(width))

    def reset_parameters(self) -> None:
        first, last = (math.log(horizon) for horizon in self.timescales)
        spread = torch.linspace(first, last, len(self.weight) // self.heads).exp()
        with torch.no_grad():
            self.weight.copy_((spread - 1).log().repeat(self.heads))


class HGRN2Mixer(nn.Module):
    """The layer above; gates, state and norm in fp32, products in the stream's autocast precision."""

    def __init__(self, spec: HGRN2, width: int, layer: int):
        super().__init__()
        self.spec = spec
        self.rotary = spec.rope.applies(layer)
        self.query = nn.Linear(width, width, bias=False)
        self.forget = nn.Linear(width, width, bias=False)
        self.input = nn.Linear(width, width, bias=False)
        self.in_linears = "query", "forget", "input"
        self.output = nn.Linear(width, width, bias=False)
        self.forget_bias = ForgetBias(width, spec.heads, spec.forget_timescales) if spec.forget_timescales else None
        self.norm = spec.output_norm.build(width)

    def forward(self, x: Tensor, document_ids: Tensor | None, bound: Tensor | None = None) -> Tensor:
        return self.mix(fused_linear(x, *self.in_weights), document_ids, bound).materialize()

    @property
    def in_weights(self) -> tuple[Tensor, ...]:
        return weights(self)

    def mix(self, projected: Tensor, document_ids: Tensor | None, bound: Tensor | None = None) -> LinearOutput:
        mixed = hgrn2(projected, self.spec.heads, bound=bound, document_ids=document_ids, **self._settings)
        return self._normed(mixed)

    def mix_pair(
        self,
        clean: Tensor,
        noisy: Tensor,
        document_ids: Tensor | None,
        target_document_ids: Tensor | None,
        bound: Tensor | None = None,
    ) -> tuple[LinearOutput, LinearOutput]:
        documents = {"document_ids": document_ids, "target_document_ids": target_document_ids}
        mixed, read = hgrn2_pair(clean, noisy, self.spec.heads, bound=bound, **documents, **self._settings)
        return self._normed(mixed), self._normed(read)

    def empty_state(self, rows: int, capacity: int) -> State:
        """The recurrent state [B, H, K, V] in fp32, whatever the capacity."""
        weight, heads = self.in_weights[0], self.spec.heads
        wide = weight.dtype if weight.dtype == torch.float64 else torch.float32
        width = weight.shape[1] // heads
        return {STATE: torch.zeros(rows, heads, width, width, dtype=wide, device=weight.device)}

    def decode(
        self, x: Tensor, state: State, positions: Tensor, lengths: Tensor, bound: Tensor | None = None
    ) -> Tensor:
        """See `Mixer`."""
        projected = fused_linear(x, *self.in_weights)
        q, k, v, log_decay = activations(projected, self.spec.heads, bound=bound, first=positions, **self._settings)
        mixed = gla_next(q, k, v, log_decay, state[STATE], lengths)
        return self._normed(mixed.flatten(-2)).materialize()

    def _normed(self, mixed: Tensor) -> LinearOutput:
        norm = cast(Norm, self.norm)
        normed, gain = norm_for_linear(mixed, norm.gain, norm.eps)
        return LinearOutput(normed, scale_weight(self.output.weight, gain))

    @property
    def host_sync(self) -> bool:
        """Unless the kernels run, the scan reads back from a device how far channels decay."""
        width = self.in_weights[0].shape[1] // self.spec.heads
        rope = self.spec.rope
        plain = not self.spec.lower_bounds and not (self.rotary and (self.spec.rope_tie_gate or rope.layout != "half"))
        return not (plain and has_kernels_for(width))

    @property
    def _settings(self) -> dict[str, Any]:
        """Return how the projection becomes what the scan reads."""
        bias, rope = None if self.forget_bias is None else self.forget_bias.weight, self.spec.rope
        turn = {"theta": rope.theta, "layout": rope.layout, "tie": self.spec.rope_tie_gate} if self.rotary else {}
        return {"bias": bias} | turn
