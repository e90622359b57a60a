"""Reads a GGUF file back as a native model: what a file says alone decides it, nothing of the folder it came from.

A Llama of llama.cpp turns neighboring channels, which a native model can do as well, so that no row changes its place
here: a mistake in the order in which `write` puts rows shows in the logits.
"""

from pathlib import Path
from typing import Any

from lilliput.base.errors import ExportError, reading
from lilliput.model import LanguageModel, ModelSpec
from lilliput.nn.ffn import SwiGLU
from lilliput.nn.gqa import GQA
from lilliput.nn.norm import RMSNorm
from lilliput.nn.rope import RoPE
from lilliput.ops.rope import Layout
from lilliput.publish.gguf.architectures import ARCHITECTURES, gguf_names, shape_of
from lilliput.publish.gguf.file_types import library, unpacked

_HINT = "publish the release again"


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the entries of a GGUF file.

    Raises:
        ExportError: it cannot be read, or `gguf` is not installed.
    """
    gguf = library()
    with reading(path, _HINT, kind=ExportError):
        return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def read_gguf(path: Path) -> LanguageModel:
    """Return the model of a GGUF file that `write_gguf` made, in fp32 on the CPU.

    Raises:
        ExportError: it cannot be read, or `gguf` is not installed.
    """
    gguf = library()
    with reading(path, _HINT, kind=ExportError):
        tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
        spec = spec_of(read_metadata(path), tied="output.weight" not in tensors)
        model = spec.skeleton()
        model.load_state_dict(
            {native: unpacked(tensors[name]) for native, name in gguf_names(spec).items()}, assign=True
        )
    return model.eval()


def spec_of(metadata: dict[str, Any], *, tied: bool) -> ModelSpec:
    """Return the shape in a file's metadata.

    Args:
        metadata: see `read_metadata`.
        tied: whether the file has no head of its own.
    """
    layouts: dict[str, Layout] = {architecture.name: architecture.layout for architecture in ARCHITECTURES.values()}
    kind, shape = metadata["general.architecture"], shape_of(metadata)
    eps, qk_norm = shape["attention.layer_norm_rms_epsilon"], kind == "qwen3"
    return ModelSpec(
        vocab=shape["vocab_size"],
        width=shape["embedding_length"],
        layers=shape["block_count"],
        mixer=GQA(
            heads=shape["attention.head_count"],
            kv_heads=shape["attention.head_count_kv"],
            head_width=shape["attention.key_length"],
            qk_norm=qk_norm,
            rope=RoPE(theta=shape["rope.freq_base"], layout=layouts[kind]),
            eps=eps,
        ),
        ffn=SwiGLU(inner=shape["feed_forward_length"]),
        norm=RMSNorm(eps=eps),
        tie_embeddings=tied,
    )
