"""A Hugging Face config as a native shape: the inverse of the layouts' `config`, for models that others saved."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lilliput.base.errors import RecipeError, RunError
from lilliput.model import ModelSpec
from lilliput.nn.ffn import SwiGLU
from lilliput.nn.gqa import GQA
from lilliput.nn.init import Normal
from lilliput.nn.norm import RMSNorm
from lilliput.nn.rope import RoPE
from lilliput.publish.config_fields import depth, flag, positive, refuse, whole_number
from lilliput.publish.hf_config_hgrn2 import hgrn2_of
from lilliput.publish.hf_formats.format import HFFormat
from lilliput.publish.hf_formats.llama import LlamaFormat
from lilliput.publish.hf_formats.qwen3 import Qwen3Format


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Architecture in a config.json."""

    shape: ModelSpec
    layout: HFFormat
    """The one that writes such a config, with the config's own context."""


_SHARED = {
    "attention_bias": False,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
}
_ABSENT: dict[str, dict[str, Any]] = {
    "llama": _SHARED | {"max_position_embeddings": 2_048, "mlp_bias": False},
    "qwen3": _SHARED | {"max_position_embeddings": 32_768, "num_key_value_heads": 32, "head_dim": 128},
}
"""Defaults of transformers for a config of each type."""
_SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "max_position_embeddings"),
)
READABLE = (*_ABSENT, "hgrn2_lm")
"""Types of models, as configs name them."""


def architecture_of(config: Mapping[str, Any], where: str) -> Architecture:
    """The shape and the layout of a `config.json`.

    Args:
        config: its entries.
        where: the folder or name, for the error.

    Raises:
        RunError: it says something that no model of ours has; the entry is named.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in READABLE:
        refuse("model_type", kind, where, f"the types that can be read are {', '.join(READABLE)}")
    if config.get("quantization_config") is not None:
        refuse("quantization_config", config["quantization_config"], where, "give weights in bf16, fp16 or fp32")
    try:
        shape, layout = (hgrn2_of if kind == "hgrn2_lm" else _transformer_of)(config, where)
    except RecipeError as error:
        raise RunError(error.what, where=f"config.json of {where}", hint="fetch the folder again") from error
    return Architecture(shape=shape, layout=layout)


def _transformer_of(config: Mapping[str, Any], where: str) -> tuple[ModelSpec, HFFormat]:
    kind = config["model_type"]
    entries = _ABSENT[kind] | {key: value for key, value in config.items() if value is not None}
    heads = whole_number(entries, "num_attention_heads", where)
    absent: dict[str, Any] = {
        "num_key_value_heads": heads,
        "head_dim": whole_number(entries, "hidden_size", where) // heads,
    }
    entries = absent | entries
    sizes = {key: whole_number(entries, key, where) for key in _SIZES}
    layers = depth(entries, where)
    _check(entries, where)
    theta = _theta(entries, where)
    eps, std = (positive(entries, key, where) for key in ("rms_norm_eps", "initializer_range"))
    qk_norm = kind == "qwen3"
    shape = ModelSpec(
        vocab=sizes["vocab_size"],
        width=sizes["hidden_size"],
        layers=layers,
        mixer=GQA(
            heads=heads,
            kv_heads=sizes["num_key_value_heads"],
            head_width=sizes["head_dim"],
            qk_norm=qk_norm,
            rope=RoPE(theta=theta),
            **({"eps": eps} if qk_norm else {}),
        ),
        ffn=SwiGLU(inner=sizes["intermediate_size"]),
        norm=RMSNorm(eps=eps),
        tie_embeddings=flag(entries, "tie_word_embeddings", where),
        init=Normal(std=std),
    )
    context = sizes["max_position_embeddings"]
    return shape, Qwen3Format(context=context) if qk_norm else LlamaFormat(context=context)


def _check(entries: Mapping[str, Any], where: str) -> None:
    """Refuse what would compute something else than a native model of that shape."""
    for key in ("attention_bias", "mlp_bias", "use_sliding_window"):
        if flag(entries, key, where):
            refuse(key, entries[key], where, "only models without biases and without a sliding window can be read")
    if entries["hidden_act"] not in ("silu", "swish"):
        refuse("hidden_act", entries["hidden_act"], where, "only silu can be read")
    types = entries.get("layer_types", [])
    if odd := [one for one in types if one != "full_attention"] if isinstance(types, list) else types:
        refuse("layer_types", odd, where, "only full_attention can be read")
    if entries["head_dim"] % 2:
        refuse("head_dim", entries["head_dim"], where, "an even number belongs there: channels turn in pairs")


def _theta(entries: Mapping[str, Any], where: str) -> float:
    """The base of the rotation, from `rope_parameters` (transformers 5) or from `rope_theta` beside `rope_scaling`."""
    key = "rope_parameters" if "rope_parameters" in entries else "rope_scaling"
    rope = entries.get(key, {})
    if not isinstance(rope, dict):
        refuse(key, rope, where, "an object belongs there: fetch the folder again")
    kind = rope.get("rope_type", rope.get("type", "default"))
    turned = rope.get("partial_rotary_factor", entries.get("partial_rotary_factor", 1.0))
    if kind != "default" or turned != 1.0:
        refuse(key, rope, where, "only plain rotary positions can be read, without scaling and in whole heads")
    return positive({"rope_theta": entries["rope_theta"]} | rope, "rope_theta", where)
