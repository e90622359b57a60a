"""The config of a released HGRN2 as a native shape, for folders that transformers, a trainer or a merge saved again."""

from collections.abc import Mapping
from typing import Any

from lilliput.model import ModelSpec
from lilliput.nn.ffn import Activation, SwiGLU, SwiGLU2
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.init import Normal
from lilliput.nn.norm import NormSpec
from lilliput.nn.rope import NoPE, RoPE, Rope
from lilliput.ops.rope import Layout
from lilliput.publish.config_fields import choice, depth, flag, positive, refuse, whole_number
from lilliput.publish.hf_formats.hgrn2 import GATES, NORM_OFFSETS, SQUARES, HGRN2Format

ABSENT: dict[str, Any] = {
    "vocab_size": 32_768,
    "hidden_size": 768,
    "num_hidden_layers": 16,
    "num_heads": 6,
    "intermediate_size": 2_048,
    "ffn": "swiglu",
    "norm_eps": 1e-6,
    "norm_offset": 0,
    "output_norm_eps": 1e-6,
    "output_norm_offset": 0,
    "gate": "none",
    "forget_bias": False,
    "lower_bounds": False,
    "rope_theta": 10_000.0,
    "rope_layers": "none",
    "rope_pairs": "half",
    "rope_tie_gate": False,
    "max_position_embeddings": 2_048,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
}
"""Defaults of the config class, which transformers leaves out when it saves one."""
HORIZONS = (2.0, 200.0)
"""At which a bias of the forget gates is taken to have begun, which no config says; the weights hold what it is."""


def hgrn2_of(config: Mapping[str, Any], where: str) -> tuple[ModelSpec, HGRN2Format]:
    """The shape and the layout that writes such a config.

    Raises:
        RunError: it says something that no model of ours has; the entry is named.
        RecipeError: what it says does not go together.
    """
    entries = ABSENT | {key: value for key, value in config.items() if value is not None}
    width, heads = whole_number(entries, "hidden_size", where), whole_number(entries, "num_heads", where)
    rope = _rope(entries, where)
    if width % heads or (rope.applies(0) and width // heads % 2):
        refuse("num_heads", heads, where, f"it has to divide the hidden_size {width}, into even parts where heads turn")
    shape = ModelSpec(
        vocab=whole_number(entries, "vocab_size", where),
        width=width,
        layers=depth(entries, where),
        mixer=HGRN2(
            heads=heads,
            rope=rope,
            rope_tie_gate=flag(entries, "rope_tie_gate", where),
            output_norm=_norm(entries, "output_norm", where),
            forget_timescales=HORIZONS if flag(entries, "forget_bias", where) else None,
            lower_bounds=flag(entries, "lower_bounds", where),
        ),
        ffn=_ffn(entries, where),
        norm=_norm(entries, "norm", where),
        gate=choice(entries, "gate", {name: kind for kind, name in GATES.items()}, where)(),
        tie_embeddings=flag(entries, "tie_word_embeddings", where),
        logit_softcap=positive(entries, "logit_cap", where) if "logit_cap" in entries else None,
        init=Normal(std=positive(entries, "initializer_range", where)),
    )
    return shape, HGRN2Format(context=whole_number(entries, "max_position_embeddings", where))


def _rope(entries: Mapping[str, Any], where: str) -> Rope:
    layouts: dict[str, Layout] = {"half": "half", "interleaved": "interleaved"}
    layout = choice(entries, "rope_pairs", layouts, where)
    theta = positive(entries, "rope_theta", where)
    ropes: dict[str, Rope] = {
        "none": NoPE(theta=theta),
        "even": RoPE(theta=theta, layout=layout, layers="even"),
        "all": RoPE(theta=theta, layout=layout),
    }
    return choice(entries, "rope_layers", ropes, where)


def _norm(entries: Mapping[str, Any], name: str, where: str) -> NormSpec:
    kind = choice(entries, f"{name}_offset", {offset: kind for kind, offset in NORM_OFFSETS.items()}, where)
    return kind(eps=positive(entries, f"{name}_eps", where))


def _ffn(entries: Mapping[str, Any], where: str) -> SwiGLU | SwiGLU2:
    inner = whole_number(entries, "intermediate_size", where)
    squares: dict[str, Activation | None] = {"swiglu": None, **{name: square for square, name in SQUARES.items()}}
    square = choice(entries, "ffn", squares, where)
    return SwiGLU(inner=inner) if square is None else SwiGLU2(inner=inner, square=square)
