"""A Hugging Face config as a native shape: the inverse of the layouts' `config`, for models that others made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from lilliput.base.errors import RunError
from lilliput.model import ModelSpec
from lilliput.nn.ffn import SwiGLU
from lilliput.nn.gqa import GQA
from lilliput.nn.initialise import Normal
from lilliput.nn.norm import RMSNorm
from lilliput.nn.rope import Everywhere
from lilliput.publish.layouts.layout import Layout
from lilliput.publish.layouts.llama import LlamaLayout
from lilliput.publish.layouts.qwen3 import Qwen3Layout


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a config.json says."""

    shape: ModelSpec
    layout: Layout
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
"""What transformers takes for granted where a config of that type is silent."""


def architecture_of(config: Mapping[str, Any], where: str) -> Architecture:
    """The shape and the layout of a `config.json`.

    Args:
        config: its entries.
        where: the folder or name, for the error.

    Raises:
        RunError: it says something that no model of ours has; the entry is named.
    """
    kind = config.get("model_type")
    if kind not in _ABSENT:
        _refuse("model_type", kind, where, f"the types that can be read are {' and '.join(sorted(_ABSENT))}")
    entries = _ABSENT[kind] | {key: value for key, value in config.items() if value is not None}
    for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
        if not isinstance(entries.get(key), int):
            _refuse(key, entries.get(key), where, "a whole number belongs there: fetch the folder again")
    _check(entries, where)
    heads = entries["num_attention_heads"]
    eps, qk_norm = entries["rms_norm_eps"], kind == "qwen3"
    mixer = GQA(
        heads=heads,
        kv_heads=entries.get("num_key_value_heads", heads),
        head_width=entries.get("head_dim", entries["hidden_size"] // heads),
        qk_norm=qk_norm,
        rope=Everywhere(theta=float(_theta(entries, where))),
        **({"eps": eps} if qk_norm else {}),
    )
    shape = ModelSpec(
        vocab=entries["vocab_size"],
        width=entries["hidden_size"],
        layers=entries["num_hidden_layers"],
        mixer=mixer,
        ffn=SwiGLU(inner=entries["intermediate_size"]),
        norm=RMSNorm(eps=eps),
        tie_embeddings=entries["tie_word_embeddings"],
        init=Normal(std=entries["initializer_range"]),
    )
    context = entries["max_position_embeddings"]
    return Architecture(shape=shape, layout=Qwen3Layout(context=context) if qk_norm else LlamaLayout(context=context))


def _check(entries: Mapping[str, Any], where: str) -> None:
    """Refuse what would compute something else than a native model of that shape."""
    for key in ("attention_bias", "mlp_bias", "use_sliding_window"):
        if entries.get(key):
            _refuse(key, entries[key], where, "only models without biases and without a sliding window can be read")
    if entries["hidden_act"] not in ("silu", "swish"):
        _refuse("hidden_act", entries["hidden_act"], where, "only silu can be read")
    if set(entries.get("layer_types", ())) - {"full_attention"}:
        _refuse("layer_types", entries["layer_types"], where, "only full_attention can be read")
    if "quantization_config" in entries:
        _refuse("quantization_config", entries["quantization_config"], where, "give weights in bf16, fp16 or fp32")


def _theta(entries: Mapping[str, Any], where: str) -> float:
    """The base of the rotation, from `rope_parameters` (transformers 5) or from `rope_theta` beside `rope_scaling`."""
    key = "rope_parameters" if "rope_parameters" in entries else "rope_scaling"
    rope = entries.get(key, {})
    kind = rope.get("rope_type", rope.get("type", "default"))
    turned = rope.get("partial_rotary_factor", entries.get("partial_rotary_factor", 1.0))
    if kind != "default" or turned != 1.0:
        _refuse(key, rope, where, "only plain rotary positions can be read, without scaling and in whole heads")
    return rope.get("rope_theta", entries["rope_theta"])


def _refuse(key: str, value: Any, where: str, hint: str) -> NoReturn:
    raise RunError(f"{key} is {value!r:.120}", where=f"config.json of {where}", hint=hint)
