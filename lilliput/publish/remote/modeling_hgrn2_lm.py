"""HGRN2 (arXiv 2404.07904) as a language model for transformers, from 4.57 on: a gated linear recurrence.

    q = silu(W_q x)    f = l + (1 - l) sigmoid(W_f x)    k = 1 - f    v = W_i x
    S_t = diag(f_t) S_{t-1} + k_t (x) v_t    o_t = K^{-1/2} q_t^T S_t    y = W_o norm(o)

The lower bound l is 0 unless the configuration says otherwise. This file, its configuration and the scan travel with
the weights and need torch and transformers only. They repeat, on purpose, what the model was trained with; tests of the
training code hold the copies together.

Positions where `attention_mask` is 0 write nothing and forget nothing (k = 0, log f = 0) and do not count for the
rotation, on whichever side and at any batch size, so a padded row has the state of the row alone.

Shapes: B rows, L positions, D model width, H heads, K = V = D / H channels of a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache, GenerationMixin, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from .configuration_hgrn2_lm import HGRN2LMConfig
from .packing_hgrn2_lm import RESET, check_positions, positions_in_text, text_begins
from .scan_hgrn2_lm import gated_scan

PAIRS = {"half": ((2, -1), -2), "interleaved": ((-1, 2), -1)}
"""How the channels of a head unfold into pairs, and the axis along which the two of a pair then lie."""


def wide_dtype(x: Tensor) -> torch.dtype:
    """What gates, norms and states are computed in: fp32, or fp64 for an fp64 model."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def rotate(x: Tensor, cos: Tensor, sin: Tensor, pairs: str) -> Tensor:
    """Turn the pairs of channels of [B, L, H, K]; cos and sin are [B, L, 1, K/2]."""
    unfolded, axis = PAIRS[pairs]
    one, two = x.to(cos.dtype).unflatten(-1, unfolded).unbind(axis)
    return torch.stack((one * cos - two * sin, two * cos + one * sin), dim=axis).flatten(-2).to(x.dtype)


def tied(x: Tensor, pairs: str) -> Tensor:
    """Both channels of each pair of [..., K] at their mean."""
    unfolded, axis = PAIRS[pairs]
    paired = x.unflatten(-1, unfolded)
    return paired.mean(axis, keepdim=True).expand_as(paired).flatten(-2)


def bounded(log_decay: Tensor, bound: Tensor) -> Tensor:
    """log(l + (1 - l) f) from log f and l."""
    least = bound.clamp(min=torch.finfo(bound.dtype).tiny).log()
    return torch.logaddexp(least, torch.log1p(-bound) + log_decay).clamp(max=0)


class HGRN2LMCache(Cache):
    """The recurrent state of every layer, of one size whatever was read, and how many real tokens each row has seen."""

    is_compileable = False
    is_croppable = False

    def __init__(self, layers: int):
        super().__init__(layers=[])
        self.memories, self.positions, self.seen = [None] * layers, None, 0

    def __len__(self) -> int:
        return len(self.memories)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns read so far, padding included."""
        return self.seen

    def crop(self, tokens: int) -> None:
        raise NotImplementedError("a recurrent state cannot forget its last tokens")

    def reset(self) -> None:
        self.memories, self.positions, self.seen = [None] * len(self), None, 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._map(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        self._map(lambda x: x.index_select(0, indices.to(x.device)))

    def _map(self, change) -> None:
        self.memories = [None if memory is None else change(memory) for memory in self.memories]
        self.positions = None if self.positions is None else change(self.positions)


class HGRN2LMRMSNorm(nn.Module):
    """x / rms(x) * (offset + weight), in fp32."""

    def __init__(self, width: int, eps: float, offset: int):
        super().__init__()
        self.eps, self.offset = eps, offset
        self.weight = nn.Parameter(torch.full((width,), 1.0 - offset))

    def forward(self, x: Tensor) -> Tensor:
        wide = wide_dtype(x)
        return F.rms_norm(x.to(wide), self.weight.shape, self.weight.to(wide) + self.offset, self.eps).to(x.dtype)


class HGRN2LMGate(nn.Module):
    """sigmoid(logit) * x, one number a branch."""

    def __init__(self):
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.logit.to(wide_dtype(x))) * x


class HGRN2LMMixer(nn.Module):
    """The recurrence between its projections; gates, state and norm in fp32."""

    def __init__(self, config: HGRN2LMConfig):
        super().__init__()
        self.num_heads, width = config.num_heads, config.hidden_size
        self.pairs, self.tie = config.rope_pairs, config.rope_tie_gate
        self.q_proj = nn.Linear(width, width, bias=False)
        self.f_proj = nn.Linear(width, width, bias=False)
        self.f_bias = nn.Parameter(torch.zeros(width)) if config.forget_bias else None  # apart, to be added in fp32
        self.i_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.norm = HGRN2LMRMSNorm(width, config.output_norm_eps, config.output_norm_offset)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None,
        turn: tuple[Tensor, Tensor] | None,
        real: Tensor | None,
        bound: Tensor | None,
        begins: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        q, z, v = (
            projection(x).unflatten(-1, (self.num_heads, -1)) for projection in (self.q_proj, self.f_proj, self.i_proj)
        )
        with torch.autocast(x.device.type, enabled=False):
            z = z.to(wide_dtype(z))
            z = z if self.f_bias is None else z + self.f_bias.to(z.dtype).view(self.num_heads, -1)
            bound = None if bound is None else bound.to(z.dtype).view(self.num_heads, -1)
            if self.tie and turn is not None:
                z, bound = tied(z, self.pairs), None if bound is None else tied(bound, self.pairs)
            log_decay, k = F.logsigmoid(z), torch.sigmoid(-z)
            if bound is not None:
                log_decay, k = bounded(log_decay, bound), (1 - bound) * k
            q, k = F.silu(q), k.to(q.dtype)
            if turn is not None:
                q, k = rotate(q, *turn, self.pairs), rotate(k, *turn, self.pairs)
            if begins is not None:
                log_decay = log_decay.masked_fill(begins[..., None, None], RESET)
            if real is not None:
                log_decay, k = (y.masked_fill(~real[..., None, None], 0.0) for y in (log_decay, k))
            if memory is None:
                memory = log_decay.new_zeros(q.shape[0], self.num_heads, q.shape[-1], v.shape[-1])
            mixed, memory = gated_scan(q, k, v, log_decay, memory)
        return self.o_proj(self.norm(mixed.flatten(-2))), memory


class HGRN2LMFFN(nn.Module):
    """down(silu(gate) * up), or one with a square, made in fp32 because it overflows fp16."""

    def __init__(self, config: HGRN2LMConfig):
        super().__init__()
        self.kind = config.ffn
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_proj(x), self.up_proj(x)
        if self.kind == "swiglu":
            return self.down_proj(F.silu(gate) * up)
        gate = (F.relu if self.kind == "reglu2" else F.silu)(gate.to(wide_dtype(gate)))
        squared = (gate * up).square() if self.kind == "swiglu2_product" else gate.square() * up
        return self.down_proj(squared.to(up.dtype))


class HGRN2LMLayer(GradientCheckpointingLayer):
    """x + gate * mixer(norm x), then x + gate * ffn(norm x)."""

    def __init__(self, config: HGRN2LMConfig, layer: int):
        super().__init__()
        gate = HGRN2LMGate if config.gate == "scalar" else nn.Identity
        self.turns = config.rope_layers == "all" or (config.rope_layers == "even" and layer % 2 == 0)
        self.mixer_norm = HGRN2LMRMSNorm(config.hidden_size, config.norm_eps, config.norm_offset)
        self.mixer = HGRN2LMMixer(config)
        self.mixer_gate = gate()
        self.ffn_norm = HGRN2LMRMSNorm(config.hidden_size, config.norm_eps, config.norm_offset)
        self.ffn = HGRN2LMFFN(config)
        self.ffn_gate = gate()

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None,
        turn: tuple[Tensor, Tensor] | None,
        real: Tensor | None,
        bound: Tensor | None,
        begins: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        mixed, memory = self.mixer(self.mixer_norm(x), memory, turn if self.turns else None, real, bound, begins)
        x = x + self.mixer_gate(mixed)
        return x + self.ffn_gate(self.ffn(self.ffn_norm(x))), memory


class HGRN2LMPreTrainedModel(PreTrainedModel):
    config_class = HGRN2LMConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["HGRN2LMLayer"]  # noqa: RUF012 (transformers replaces it on instances)
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _is_stateful = True
    _supports_sdpa = False
    _supports_flash_attn = False
    _supports_flex_attn = False
    _supports_attention_backend = False
    _can_compile_fullgraph = False

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """`generate` must not bring a cache of keys and values; the model makes its own."""
        return False

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
        elif isinstance(module, HGRN2LMRMSNorm):
            nn.init.constant_(module.weight, 1.0 - module.offset)
        elif isinstance(module, HGRN2LMGate):
            nn.init.zeros_(module.logit)


class HGRN2LMModel(HGRN2LMPreTrainedModel):
    """Embedding, layers, final norm."""

    def __init__(self, config: HGRN2LMConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        shape = (config.num_hidden_layers, config.hidden_size)
        self.lower_bounds = nn.Parameter(torch.zeros(shape)) if config.lower_bounds else None
        self.layers = nn.ModuleList(HGRN2LMLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = HGRN2LMRMSNorm(config.hidden_size, config.norm_eps, config.norm_offset)
        self.gradient_checkpointing = False
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: HGRN2LMCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPast:
        """Token ids [B, L] -> hidden states [B, L, D], and the state if `use_cache`.

        `attention_mask` is [B, L], or [B, seen + L] as `generate` keeps it; its last L columns count.
        `past_key_values` is what an earlier call returned, and is changed in place. Rows of several texts are told by
        `position_ids`, `seq_idx` or `cu_seq_lens_*`, see `text_begins`.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        use_cache = self.config.use_cache and not self.training if use_cache is None else use_cache
        keep_streams = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states

        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        rows, length = x.shape[:2]
        cache = HGRN2LMCache(len(self.layers)) if past_key_values is None else past_key_values
        self.check_cache(cache, rows)
        real = None if attention_mask is None else self.real_columns(attention_mask, rows, length, cache.seen)
        first = x.new_zeros(rows, dtype=torch.long) if cache.positions is None else cache.positions
        steps = torch.arange(1, length + 1, device=x.device).expand(rows, -1) if real is None else real.cumsum(dim=1)
        positions, begins = first[:, None] + steps - 1, text_begins(rows, length, **kwargs)
        if begins is not None:
            positions = positions_in_text(positions, begins)
            check_positions(kwargs.get("position_ids"), positions, real)
        turn = self.angles(positions, x)

        bounds, streams = self.bounds(), []
        for place, layer in enumerate(self.layers):
            if keep_streams:
                streams.append(x)
            x, cache.memories[place] = layer(x, cache.memories[place], turn, real, bounds[place], begins)
        cache.positions, cache.seen = positions[:, -1] + 1, cache.seen + length
        x = self.norm(x)
        streams = (*streams, x) if keep_streams else None
        return BaseModelOutputWithPast(x, past_key_values=cache if use_cache else None, hidden_states=streams)

    def check_cache(self, cache: Cache, rows: int) -> None:
        """Refuse what is no state of this model, or one of other rows."""
        if not isinstance(cache, HGRN2LMCache):
            raise ValueError(f"past_key_values is an HGRN2LMCache, not a {type(cache).__name__}")
        if len(cache) != len(self.layers):
            raise ValueError(f"past_key_values is of a model of {len(cache)} layers, not {len(self.layers)}")
        if cache.positions is not None and len(cache.positions) != rows:
            raise ValueError(f"past_key_values is of {len(cache.positions)} rows, the input has {rows}")

    @staticmethod
    def real_columns(attention_mask: Tensor, rows: int, length: int, seen: int) -> Tensor:
        """Which of the last L columns hold real tokens, [B, L]."""
        shape = tuple(attention_mask.shape)
        if shape not in ((rows, length), (rows, seen + length)):
            earlier = f", or [{rows}, {seen + length}] with the {seen} that past_key_values has seen" if seen else ""
            raise ValueError(f"attention_mask is [{rows}, {length}]{earlier}, not {list(shape)}")
        real = attention_mask[:, -length:]
        if real.dtype != torch.bool and ((real != 0) & (real != 1)).any():
            raise ValueError("attention_mask is 1 where a token counts and 0 where not: it cannot number packed texts")
        return real.to(torch.bool)

    def bounds(self) -> list[Tensor | None]:
        """Lower bounds [D] of each layer's forget gates, which rise with the layers; None for a model without."""
        if self.lower_bounds is None:
            return [None] * len(self.layers)
        share = self.lower_bounds.to(wide_dtype(self.lower_bounds)).softmax(dim=0)
        return list((share.cumsum(dim=0) - share[0]).clamp(max=1 - torch.finfo(share.dtype).eps))

    def angles(self, positions: Tensor, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """cos and sin [B, L, 1, K/2] of the rotation at positions [B, L]; None for a model that never turns."""
        if self.config.rope_layers == "none":
            return None
        wide = wide_dtype(x)
        half = self.config.hidden_size // self.config.num_heads // 2
        frequency = self.config.rope_theta ** (torch.arange(half, device=x.device, dtype=wide) / -half)
        angle = (positions.to(wide)[..., None] * frequency)[:, :, None, :]
        return angle.cos(), angle.sin()


class HGRN2LMForCausalLM(HGRN2LMPreTrainedModel, GenerationMixin):
    """The model with its head."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 (transformers 5 wants a dict)

    def __init__(self, config: HGRN2LMConfig):
        super().__init__(config)
        self.model = HGRN2LMModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: HGRN2LMCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """Token ids [B, L] -> logits [B, L, V] (or of the last `logits_to_keep` positions; 0 means all).

        With `labels` [B, L] (-100 where nothing is asked) also the mean loss of predicting each next one.
        """
        given = input_ids, attention_mask, past_key_values, inputs_embeds, use_cache, output_hidden_states
        outputs = self.model(*given, **kwargs | {"return_dict": True})
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        cap = self.config.logit_cap
        if cap is not None:
            logits = cap * torch.tanh(logits.to(wide_dtype(logits)) / cap)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(loss, logits, outputs.past_key_values, outputs.hidden_states)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        past_key_values: HGRN2LMCache | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs,
    ) -> dict:
        """What `generate` reads next of a text: all that comes after what the state has seen of it."""
        seen = 0 if past_key_values is None else past_key_values.get_seq_length()
        masked = attention_mask is not None and attention_mask.shape[1] == input_ids.shape[1]
        left = kwargs.get("next_sequence_length")  # transformers 5 counts what is left itself, and drops a mask of ones
        if (left is not None and left <= 0) or (seen and masked and seen >= input_ids.shape[1]):
            raise ValueError(f"past_key_values has seen {seen} tokens: give a longer text, which begins with them")
        inputs = {"past_key_values": past_key_values, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds}
        return super().prepare_inputs_for_generation(input_ids, **inputs, **kwargs)


__all__ = ["HGRN2LMCache", "HGRN2LMForCausalLM", "HGRN2LMModel", "HGRN2LMPreTrainedModel"]
