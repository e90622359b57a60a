"""Qwen3ForCausalLM: grouped-query attention with QK-norm. Most of what reads models reads this one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lilliput.model import ModelSpec
from lilliput.nn.block import Ungated
from lilliput.nn.ffn import SwiGLU
from lilliput.nn.gqa import GQA
from lilliput.nn.norm import RMSNorm
from lilliput.nn.rope import RoPE
from lilliput.ops.rope import interleaved_to_half
from lilliput.publish.hf_formats.format import HFFormat, exactly, expand, refuse

TRANSFORMER_NAMES = {
    "embedding.weight": "model.embed_tokens.weight",
    "layers.{}.mixer_norm.weight": "model.layers.{}.input_layernorm.weight",
    "layers.{}.mixer.query.weight": "model.layers.{}.self_attn.q_proj.weight",
    "layers.{}.mixer.key.weight": "model.layers.{}.self_attn.k_proj.weight",
    "layers.{}.mixer.value.weight": "model.layers.{}.self_attn.v_proj.weight",
    "layers.{}.mixer.output.weight": "model.layers.{}.self_attn.o_proj.weight",
    "layers.{}.ffn_norm.weight": "model.layers.{}.post_attention_layernorm.weight",
    "layers.{}.ffn.gate.weight": "model.layers.{}.mlp.gate_proj.weight",
    "layers.{}.ffn.up.weight": "model.layers.{}.mlp.up_proj.weight",
    "layers.{}.ffn.down.weight": "model.layers.{}.mlp.down_proj.weight",
    "norm.weight": "model.norm.weight",
}
"""Names that Qwen3 and Llama share; a tied head is not stored."""
QK_NORM_NAMES = {
    "layers.{}.mixer.query_norm.weight": "model.layers.{}.self_attn.q_norm.weight",
    "layers.{}.mixer.key_norm.weight": "model.layers.{}.self_attn.k_norm.weight",
}
HEAD_NAME = {"output.weight": "lm_head.weight"}


@dataclass(frozen=True, kw_only=True)
class Qwen3Format:
    """GQA(qk_norm=True, rope=RoPE()), RMSNorm, SwiGLU, Ungated."""

    context: int

    @property
    def remote_files(self) -> tuple[Path, ...]:
        return ()

    def check_supported(self, spec: ModelSpec) -> None:
        mixer, _, norm = transformer_parts(self, spec)
        if not mixer.qk_norm:
            refuse(self, "mixer", mixer, "GQA(qk_norm=True)")
        if mixer.eps != norm.eps:
            refuse(self, "mixer", mixer, f"one eps in all norms: GQA(eps={norm.eps})")

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        return transformer_config(self, spec) | {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "layer_types": ["full_attention"] * spec.layers,
            "max_window_layers": spec.layers,
            "sliding_window": None,
            "use_sliding_window": False,
        }

    def names(self, spec: ModelSpec) -> dict[str, str]:
        head = {} if spec.tie_embeddings else HEAD_NAME
        return expand(TRANSFORMER_NAMES | QK_NORM_NAMES | head, spec.layers)

    def row_permutations(self, spec: ModelSpec) -> dict[str, Tensor]:
        return transformer_orders(self, spec)


def transformer_parts(layout: HFFormat, spec: ModelSpec) -> tuple[GQA, RoPE, RMSNorm]:
    """The mixer, its rotation and the norm; whatever neither Qwen3 nor Llama has is refused."""
    mixer = exactly(layout, "mixer", spec.mixer, GQA)
    rope = exactly(layout, "mixer.rope", mixer.rope, RoPE)
    if rope.layers != "all":
        refuse(layout, "mixer.rope", rope, 'RoPE(layers="all")')
    if mixer.softcap is not None:
        refuse(layout, "mixer", mixer, "GQA(softcap=None)")
    if spec.logit_softcap is not None:
        refuse(layout, "logit_softcap", spec.logit_softcap, "logit_softcap=None")
    exactly(layout, "ffn", spec.ffn, SwiGLU)
    exactly(layout, "gate", spec.gate, Ungated)
    return mixer, rope, exactly(layout, "norm", spec.norm, RMSNorm)


def transformer_config(layout: HFFormat, spec: ModelSpec) -> dict[str, Any]:
    """The config entries that Qwen3 and Llama share."""
    mixer, rope, norm = transformer_parts(layout, spec)
    return {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "head_dim": mixer.head_width,
        "hidden_act": "silu",
        "hidden_size": spec.width,
        "initializer_range": spec.init.std,
        "intermediate_size": spec.ffn.inner,
        "max_position_embeddings": layout.context,
        "num_attention_heads": mixer.heads,
        "num_hidden_layers": spec.layers,
        "num_key_value_heads": mixer.kv_heads,
        "rms_norm_eps": norm.eps,
        "rope_parameters": {"rope_theta": rope.theta, "rope_type": "default"},
        # Readers older than transformers 5 look here, and would silently turn by 10,000 without it.
        "rope_theta": rope.theta,
        "tie_word_embeddings": spec.tie_embeddings,
        "use_cache": True,
        "vocab_size": spec.vocab,
    }


def transformer_orders(layout: HFFormat, spec: ModelSpec) -> dict[str, Tensor]:
    """Both turn halves: what we turn as neighbours is exported with the channels of queries and keys in that order."""
    mixer, rope, _ = transformer_parts(layout, spec)
    if rope.layout == "half":
        return {}
    of_head = interleaved_to_half(mixer.head_width, rope.layout)
    heads = {"query": mixer.heads, "key": mixer.kv_heads} | ({"query_norm": 1, "key_norm": 1} if mixer.qk_norm else {})
    return {
        f"layers.{layer}.mixer.{name}.weight": torch.cat([head * mixer.head_width + of_head for head in range(count)])
        for layer in range(spec.layers)
        for name, count in heads.items()
    }
