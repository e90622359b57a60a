"""HGRN2 (arXiv 2404.07904): a gated linear recurrence whose forget gate is also its write key, k = 1 - f.

    q = silu(W_q x)    f = sigmoid(W_f x [+ b])    k = 1 - f    v = W_i x
    S_t = diag(f_t) S_{t-1} + k_t (x) v_t    o_t = K^{-1/2} q_t^T S_t    y = W_o norm(o)

Shapes: B rows, L positions, D model width, H heads of width D / H for keys and values alike.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lilliput.base.errors import RecipeError
from lilliput.base.spec import check_range
from lilliput.nn.norm import NormSpec, RMSNorm
from lilliput.nn.rope import Nowhere, Rope, rotate
from lilliput.ops.gated_scan import gated_scan, reset_at_documents


@dataclass(frozen=True, kw_only=True)
class HGRN2:
    """`heads` recurrent heads; the state of one row is heads x (D / heads)^2 numbers, whatever its length."""

    heads: int
    rope: Rope = Nowhere()
    """Rotation of queries and keys, after the gate has made the key."""
    output_norm: NormSpec = RMSNorm()
    """Over the full width, before the output projection."""
    horizons: tuple[float, float] | None = None
    """Positions over which a channel forgets 1 - 1/e of what it held, at first: from the first to the last number,
    spread evenly in their logarithm over a head's channels, by a learned bias of the forget gate (the official code
    has one, the cards do not). None: no bias, and every channel begins by forgetting half at each position."""

    def __post_init__(self) -> None:
        check_range("HGRN2", 1, math.inf, heads=self.heads)
        if self.horizons and not 1 < self.horizons[0] <= self.horizons[1]:
            raise RecipeError(
                f"horizons of {self.horizons} positions do not rise from above 1",
                where="HGRN2(horizons=)",
                hint="give two numbers such as (2.0, 200.0), or None for no bias",
            )

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
    """z + b for gates z [B, L, H, K], with sigmoid(b) = 1 - 1 / horizon at first."""

    def __init__(self, width: int, heads: int, horizons: tuple[float, float]):
        super().__init__()
        self.heads, self.horizons = heads, horizons
        self.weight = nn.Parameter(torch.empty(width))

    def reset_parameters(self) -> None:
        first, last = (math.log(horizon) for horizon in self.horizons)
        spread = torch.linspace(first, last, len(self.weight) // self.heads).exp()
        with torch.no_grad():
            self.weight.copy_((spread - 1).log().repeat(self.heads))

    def forward(self, z: Tensor) -> Tensor:
        return z + self.weight.view(self.heads, -1)


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
        self.forget_bias = HorizonBias(width, spec.heads, spec.horizons) if spec.horizons else nn.Identity()
        self.norm = spec.output_norm.build(width)

    def mix(
        self, x: Tensor, state: Recurrent | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, Recurrent]:
        q, z, v = (
            projection(x).unflatten(-1, (self.spec.heads, -1)) for projection in (self.query, self.forget, self.input)
        )
        memory, position = (None, 0) if state is None else state
        with torch.autocast(x.device.type, enabled=False):
            z = self.forget_bias(z if z.dtype == torch.float64 else z.float())
            log_decay = F.logsigmoid(z)
            # sigmoid(-z), not 1 - exp(log f): in half precision the difference is 0 beyond f = 0.9998.
            k = torch.sigmoid(-z).to(q.dtype)
            q = F.silu(q)
            if self.turns:
                q, k = (rotate(y, self.spec.rope.theta, position) for y in (q, k))
            if segments is not None:
                log_decay = reset_at_documents(log_decay, segments)
            mixed, memory = gated_scan(q, k, v, log_decay, memory)
        return self.output(self.norm(mixed.flatten(-2))), Recurrent(memory, position + x.shape[1])

    def empty_state(self, rows: int) -> Recurrent:
        head = self.query.weight.shape[0] // self.spec.heads
        weight = self.query.weight
        wide = weight.dtype if weight.dtype == torch.float64 else torch.float32
        return Recurrent(torch.zeros(rows, self.spec.heads, head, head, dtype=wide, device=weight.device), 0)
