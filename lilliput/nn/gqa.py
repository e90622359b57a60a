"""Grouped-query attention (arXiv 2305.13245) with optional QK-norm and rotary positions.

Shapes: B rows, L positions, D model width, H query heads, G key heads, W head width.
"""

from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from lilliput.base.errors import RecipeError
from lilliput.base.spec import check_range, check_softcap
from lilliput.nn.decoding_copy import weights
from lilliput.nn.mixer import State
from lilliput.nn.norm import RMSNormLayer
from lilliput.nn.rope import RoPE, Rope
from lilliput.ops.attention import attention, heads
from lilliput.ops.attention.pair import attention_pair
from lilliput.ops.linear import LinearOutput, fused_linear, linear
from lilliput.ops.sdpa.cached import sdpa_cached

KEYS_VALUES = ("keys", "values")
"""Entries of the state."""


@dataclass(frozen=True, kw_only=True)
class GQA:
    """`heads` query heads share `kv_heads` key and value heads of width `head_width`."""

    heads: int
    kv_heads: int
    head_width: int
    qk_norm: bool = False
    """RMSNorm over each head's queries and keys before the rotation, one weight of `head_width` each."""
    rope: Rope = RoPE()
    eps: float = 1e-6
    """Epsilon of the QK-norm."""
    softcap: float | None = None
    """Soft-cap of the scores, c * tanh(s / c); None for none."""

    def __post_init__(self) -> None:
        check_range("GQA", 1, inf, heads=self.heads, kv_heads=self.kv_heads, head_width=self.head_width)
        check_softcap("GQA", softcap=self.softcap)
        if self.heads % self.kv_heads:
            raise RecipeError(
                f"{self.heads} query heads cannot share {self.kv_heads} key heads evenly",
                where="GQA(heads=, kv_heads=)",
                hint="choose kv_heads so that it divides heads",
            )

    def shared_parameters(self, width: int, layers: int) -> None:
        return None

    def build(self, width: int, layer: int) -> nn.Module:
        return GQAMixer(self, width, layer)

    def flops(self, width: int, length: int, layer: int) -> int:
        projections = 2 * width * self.head_width * (2 * self.heads + 2 * self.kv_heads)
        return projections + 2 * self.heads * self.head_width * length  # a causal query sees length / 2 on average

    def state_entries(self, width: int, length: int, layer: int) -> int:
        return 2 * self.kv_heads * self.head_width * length


class GQAMixer(nn.Module):
    """output(attend(rope(norm(query x)), rope(norm(key x)), value x))."""

    def __init__(self, spec: GQA, width: int, layer: int):
        super().__init__()
        self.spec = spec
        self.rotary = spec.rope.applies(layer)
        inner, shared = spec.heads * spec.head_width, spec.kv_heads * spec.head_width
        self.query = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(width, shared, bias=False)
        self.value = nn.Linear(width, shared, bias=False)
        self.in_linears = "query", "key", "value"
        self.output = nn.Linear(inner, width, bias=False)
        self.query_norm = RMSNormLayer(spec.head_width, spec.eps, offset=0.0) if spec.qk_norm else nn.Identity()
        self.key_norm = RMSNormLayer(spec.head_width, spec.eps, offset=0.0) if spec.qk_norm else nn.Identity()

    def forward(self, x: Tensor, document_ids: Tensor | None) -> Tensor:
        return self.mix(fused_linear(x, *self.in_weights), document_ids).materialize()

    @property
    def in_weights(self) -> tuple[Tensor, ...]:
        return weights(self)

    def mix(self, projected: Tensor, document_ids: Tensor | None) -> LinearOutput:
        mixed = attention(
            projected, *self._shape, document_ids=document_ids, softcap=self.spec.softcap, **self._settings
        )
        return LinearOutput(mixed, self.output.weight)

    def mix_pair(
        self, clean: Tensor, noisy: Tensor, document_ids: Tensor | None, target_document_ids: Tensor | None
    ) -> tuple[LinearOutput, LinearOutput]:
        documents = {"document_ids": document_ids, "target_document_ids": target_document_ids}
        streams = attention_pair(clean, noisy, *self._shape, softcap=self.spec.softcap, **documents, **self._settings)
        mixed, read = (LinearOutput(stream, self.output.weight) for stream in streams)
        return mixed, read

    def empty_state(self, rows: int, capacity: int) -> State:
        """Keys and values of all positions, each [B, G, capacity, W]: a head's in one piece, as attention reads them.

        In the dtype in which attention is computed.
        """
        shape = rows, self.spec.kv_heads, capacity, self.spec.head_width
        device = self.in_weights[0].device
        return {name: torch.zeros(shape, dtype=self._cached_dtype, device=device) for name in KEYS_VALUES}

    def decode(self, x: Tensor, state: State, positions: Tensor, lengths: Tensor) -> Tensor:
        """See `Mixer`; what padding writes lies behind all that a query sees, until it is overwritten."""
        projected = fused_linear(x, *self.in_weights)
        q, *fresh = heads(projected, *self._shape, first=positions, **self._settings)
        index = positions[:, None] + torch.arange(x.shape[1], device=x.device)
        row = torch.arange(len(x), device=x.device)[:, None]
        for name, one in zip(KEYS_VALUES, fresh, strict=True):
            state[name].transpose(1, 2)[row, index] = one.to(state[name].dtype)
        q, k, v = (one.to(self._cached_dtype) for one in (q, *(state[name] for name in KEYS_VALUES)))
        mixed = sdpa_cached(q, k, v, index, self.spec.softcap)
        return linear(mixed.flatten(-2), self.output.weight)

    @property
    def host_sync(self) -> bool:
        return False

    @property
    def _cached_dtype(self) -> torch.dtype:
        """Return the dtype of attention to a cache: fp32 on a processor, where fp16 takes eight times as long."""
        weight = self.in_weights[0]
        return weight.dtype if weight.is_cuda or weight.dtype == torch.float64 else torch.float32

    @property
    def _shape(self) -> tuple[int, int]:
        return self.spec.kv_heads, self.spec.head_width

    @property
    def _settings(self) -> dict[str, Any]:
        """Return how the projection becomes heads."""
        gains = (self.query_norm.weight, self.key_norm.weight) if self.spec.qk_norm else None
        rope = self.spec.rope
        theta = rope.theta if self.rotary else None
        return {"gains": gains, "eps": self.spec.eps, "theta": theta, "layout": rope.layout}
