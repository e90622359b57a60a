"""Llama and Qwen3 as llama.cpp knows them: names of tensors, hyperparameters, and the order of a head's channels.

    native ---> Hugging Face ---> GGUF

llama.cpp turns neighboring channels of a Llama, as Llama's own code does, and halves of a Qwen3's heads, as
transformers does of both. So the rows of a Llama's queries and keys change places on the way from a Hugging Face
folder, and those of a Qwen3 stay.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lilliput.base.errors import ExportError
from lilliput.model import ModelSpec
from lilliput.nn.gqa import GQA
from lilliput.nn.norm import RMSNorm
from lilliput.ops.rope import Layout, interleaved_to_half
from lilliput.publish.hf_formats.format import HFFormat, expand
from lilliput.publish.hf_formats.llama import LlamaFormat
from lilliput.publish.hf_formats.qwen3 import Qwen3Format

_NAMES = {
    "embedding.weight": "token_embd.weight",
    "layers.{}.mixer_norm.weight": "blk.{}.attn_norm.weight",
    "layers.{}.mixer.query.weight": "blk.{}.attn_q.weight",
    "layers.{}.mixer.key.weight": "blk.{}.attn_k.weight",
    "layers.{}.mixer.value.weight": "blk.{}.attn_v.weight",
    "layers.{}.mixer.output.weight": "blk.{}.attn_output.weight",
    "layers.{}.ffn_norm.weight": "blk.{}.ffn_norm.weight",
    "layers.{}.ffn.gate.weight": "blk.{}.ffn_gate.weight",
    "layers.{}.ffn.up.weight": "blk.{}.ffn_up.weight",
    "layers.{}.ffn.down.weight": "blk.{}.ffn_down.weight",
    "norm.weight": "output_norm.weight",
}
_QK_NORM_NAMES = {
    "layers.{}.mixer.query_norm.weight": "blk.{}.attn_q_norm.weight",
    "layers.{}.mixer.key_norm.weight": "blk.{}.attn_k_norm.weight",
}
_HEAD_NAME = {"output.weight": "output.weight"}
"""Not stored of a tied head: llama.cpp takes the embedding where it is absent."""


class Architecture(NamedTuple):
    """An architecture of llama.cpp."""

    name: str
    layout: Layout
    """Which channels of a head llama.cpp turns together."""


ARCHITECTURES: dict[type, Architecture] = {
    LlamaFormat: Architecture("llama", "interleaved"),
    Qwen3Format: Architecture("qwen3", "half"),
}


def architecture_for(layout: HFFormat) -> Architecture:
    """The architecture of llama.cpp that computes what one of transformers does.

    Raises:
        ExportError: llama.cpp has none.
    """
    architecture = ARCHITECTURES.get(type(layout))
    if architecture is None:
        raise ExportError(
            f"llama.cpp runs no model of {type(layout).__name__}",
            where="the format gguf of a release",
            hint="publish it as hf alone: GGUF files are made of Llama and Qwen3; for HGRN2 see docs/hgrn2-in-ggml.md",
        )
    return architecture


def gguf_names(spec: ModelSpec) -> dict[str, str]:
    """Names in GGUF by native names, in the order in which they are stored."""
    assert isinstance(spec.mixer, GQA)
    qk_norm = _QK_NORM_NAMES if spec.mixer.qk_norm else {}
    return expand(_NAMES | qk_norm | ({} if spec.tie_embeddings else _HEAD_NAME), spec.layers)


def row_permutations(architecture: Architecture, spec: ModelSpec) -> dict[str, Tensor]:
    """Native parameter name -> which row of a Hugging Face folder each row in GGUF is, where rows change places."""
    mixer = spec.mixer
    assert isinstance(mixer, GQA)
    if architecture.layout == "half":
        return {}
    of_head = interleaved_to_half(mixer.head_width, architecture.layout).argsort()
    return {
        f"layers.{layer}.mixer.{name}.weight": torch.cat([head * mixer.head_width + of_head for head in range(count)])
        for layer in range(spec.layers)
        for name, count in (("query", mixer.heads), ("key", mixer.kv_heads))
    }


def hyperparameters(spec: ModelSpec, context: int) -> dict[str, int | float]:
    """Return the entries of a shape in GGUF, by keys without the architecture's name in front of them.

    Floats are those of RMSNorm and of the rotation; llama.cpp reads all others as uint32.
    """
    mixer, norm = spec.mixer, spec.norm
    assert isinstance(mixer, GQA) and isinstance(norm, RMSNorm)
    return {
        "vocab_size": spec.vocab,
        "context_length": context,
        "embedding_length": spec.width,
        "block_count": spec.layers,
        "feed_forward_length": spec.ffn.inner,
        "attention.head_count": mixer.heads,
        "attention.head_count_kv": mixer.kv_heads,
        "attention.key_length": mixer.head_width,
        "attention.value_length": mixer.head_width,
        "attention.layer_norm_rms_epsilon": float(norm.eps),
        "rope.dimension_count": mixer.head_width,
        "rope.freq_base": float(mixer.rope.theta),
    }


def shape_of(read: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters of a file, without the architecture's name in front of their keys."""
    prefix = f"{read['general.architecture']}."
    return {key.removeprefix(prefix): value for key, value in read.items() if key.startswith(prefix)}
