"""A Hugging Face config as a native shape: the inverse of the layouts' `config`, for models that others made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from lilliput.base.errors import RecipeError, RunError
from lilliput.base.limits import limit, raising
from lilliput.base.strangers import shown
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
_WHOLE = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "max_position_embeddings"),
)
_LARGEST = 2**31 - 1


def architecture_of(config: Mapping[str, Any], where: str) -> Architecture:
    """The shape and the layout of a `config.json`.

    Args:
        config: its entries.
        where: the folder or name, for the error.

    Raises:
        RunError: it says something that no model of ours has; the entry is named.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in _ABSENT:
        _refuse("model_type", kind, where, f"the types that can be read are {' and '.join(sorted(_ABSENT))}")
    entries = _ABSENT[kind] | {key: value for key, value in config.items() if value is not None}
    heads = _whole(entries, "num_attention_heads", where)
    absent: dict[str, Any] = {"num_key_value_heads": heads, "head_dim": _whole(entries, "hidden_size", where) // heads}
    entries = absent | entries
    whole = {key: _whole(entries, key, where) for key in _WHOLE}
    if whole["num_hidden_layers"] > limit("model_layers"):
        _refuse("num_hidden_layers", whole["num_hidden_layers"], where, raising("model_layers"))
    _check(entries, where)
    theta = _theta(entries, where)
    eps, std = (_positive(entries, key, where) for key in ("rms_norm_eps", "initializer_range"))
    qk_norm = kind == "qwen3"
    try:
        shape = ModelSpec(
            vocab=whole["vocab_size"],
            width=whole["hidden_size"],
            layers=whole["num_hidden_layers"],
            mixer=GQA(
                heads=heads,
                kv_heads=whole["num_key_value_heads"],
                head_width=whole["head_dim"],
                qk_norm=qk_norm,
                rope=Everywhere(theta=theta),
                **({"eps": eps} if qk_norm else {}),
            ),
            ffn=SwiGLU(inner=whole["intermediate_size"]),
            norm=RMSNorm(eps=eps),
            tie_embeddings=entries["tie_word_embeddings"],
            init=Normal(std=std),
        )
    except RecipeError as error:
        raise RunError(error.what, where=f"config.json of {where}", hint="fetch the folder again") from error
    context = whole["max_position_embeddings"]
    return Architecture(shape=shape, layout=Qwen3Layout(context=context) if qk_norm else LlamaLayout(context=context))


def _whole(entries: Mapping[str, Any], key: str, where: str) -> int:
    value = entries.get(key)
    if type(value) is not int or not 1 <= value <= _LARGEST:  # true is an int, too
        _refuse(key, value, where, f"a whole number from 1 to {_LARGEST} belongs there: fetch the folder again")
    return value


def _positive(entries: Mapping[str, Any], key: str, where: str) -> float:
    value = entries.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _LARGEST:  # NaN is nowhere
        return float(value)
    _refuse(key, value, where, "a number above 0 belongs there: fetch the folder again")


def _check(entries: Mapping[str, Any], where: str) -> None:
    """Refuse what would compute something else than a native model of that shape."""
    for key in ("attention_bias", "mlp_bias", "tie_word_embeddings", "use_sliding_window"):
        if type(entries.get(key, False)) is not bool:
            _refuse(key, entries[key], where, "true or false belongs there: fetch the folder again")
    for key in ("attention_bias", "mlp_bias", "use_sliding_window"):
        if entries.get(key):
            _refuse(key, entries[key], where, "only models without biases and without a sliding window can be read")
    if entries["hidden_act"] not in ("silu", "swish"):
        _refuse("hidden_act", entries["hidden_act"], where, "only silu can be read")
    types = entries.get("layer_types", [])
    if odd := [one for one in types if one != "full_attention"] if isinstance(types, list) else types:
        _refuse("layer_types", odd, where, "only full_attention can be read")
    if "quantization_config" in entries:
        _refuse("quantization_config", entries["quantization_config"], where, "give weights in bf16, fp16 or fp32")
    if entries["head_dim"] % 2:
        _refuse("head_dim", entries["head_dim"], where, "an even number belongs there: channels turn in pairs")


def _theta(entries: Mapping[str, Any], where: str) -> float:
    """The base of the rotation, from `rope_parameters` (transformers 5) or from `rope_theta` beside `rope_scaling`."""
    key = "rope_parameters" if "rope_parameters" in entries else "rope_scaling"
    rope = entries.get(key, {})
    if not isinstance(rope, dict):
        _refuse(key, rope, where, "an object belongs there: fetch the folder again")
    kind = rope.get("rope_type", rope.get("type", "default"))
    turned = rope.get("partial_rotary_factor", entries.get("partial_rotary_factor", 1.0))
    if kind != "default" or turned != 1.0:
        _refuse(key, rope, where, "only plain rotary positions can be read, without scaling and in whole heads")
    return _positive({"rope_theta": entries["rope_theta"]} | rope, "rope_theta", where)


def _refuse(key: str, value: Any, where: str, hint: str) -> NoReturn:
    raise RunError(f"{key} is {shown(value)}", where=f"config.json of {where}", hint=hint)
