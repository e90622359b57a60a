"""Writes a Hugging Face folder of a Llama or a Qwen3 as one GGUF file, which llama.cpp and what is built on it run.

The folder has all that the file says, but for what only people need: `About`. Tensors are read, rounded and written
one by one, so that memory holds the largest of them and never the model.
"""

from contextlib import closing
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lilliput.base import __version__
from lilliput.base.files import new_file, read_json, sha256
from lilliput.base.safetensors_headers import open_safetensors
from lilliput.publish.export import CHAT_TEMPLATE_FILE, GENERATION_FILE, WEIGHTS_FILE
from lilliput.publish.gguf.architectures import architecture_for, gguf_names, hyperparameters, row_permutations
from lilliput.publish.gguf.file_types import FileType, library, packed, tensor_type
from lilliput.publish.gguf.tokenizer import tokenizer_metadata
from lilliput.publish.pretrained import read_architecture
from lilliput.publish.weights import check_header
from lilliput.tokenizer.bpe import load_tokenizer
from lilliput.tokenizer.specials import read_specials
from lilliput.tokenizer.template import read_template

SHA256_KEY = "lilliput.source.sha256"
"""Key of the hash of the weights that a file was made from."""


@dataclass(frozen=True, kw_only=True)
class About:
    """Facts about a model that a GGUF file tells people."""

    name: str
    description: str = ""
    license: str | None = None
    languages: tuple[str, ...] = ()
    base_model: str | None = None
    """The checkpoint that it began with: "owner/name" on the hub."""

    def metadata(self) -> dict[str, Any]:
        """Return the entries, by GGUF's keys."""
        entries: dict[str, Any] = {
            "general.type": "model",
            "general.name": self.name,
            "general.description": self.description,
            "general.license": self.license,
            "general.languages": list(self.languages),
        }
        if self.base_model is not None:
            owner, _, name = self.base_model.rpartition("/")
            entries |= {
                "general.base_model.count": 1,
                "general.base_model.0.name": name,
                "general.base_model.0.organization": owner,
                "general.base_model.0.repo_url": f"https://huggingface.co/{self.base_model}",
            }
        return {key: value for key, value in entries.items() if value}


def write_gguf(folder: Path, path: Path, file_type: FileType, about: About) -> None:
    """Write a model as a GGUF file, whole or not at all.

    Args:
        folder: of a released Llama or Qwen3.
        path: the file.
        file_type: what its matrices are rounded to.
        about: what it says for people.

    Raises:
        ExportError: llama.cpp has no such architecture or tokenizer, a weight does not fit, or `gguf` is not installed.
        RunError: the folder cannot be read.
    """
    gguf = library()
    read = read_architecture(folder)
    spec, architecture = read.shape, architecture_for(read.layout)
    names, exported = gguf_names(spec), read.layout.names(spec)
    stored, permutations = check_header(folder, spec, read.layout), row_permutations(architecture, spec)
    metadata = {
        **about.metadata(),
        "general.quantization_version": gguf.GGML_QUANT_VERSION,
        "general.file_type": int(gguf.LlamaFileType[f"MOSTLY_{file_type}"]),
        "lilliput.version": __version__,
        SHA256_KEY: sha256(folder / WEIGHTS_FILE),
        **{f"{architecture.name}.{key}": value for key, value in hyperparameters(spec, read.layout.context).items()},
        **_tokenizer(folder, spec.vocab),
    }
    shapes = {native: stored[native].shape for native in names}
    with new_file(path) as partial, closing(gguf.GGUFWriter(None, architecture.name)) as writer:
        for key, value in metadata.items():
            _add(writer, key, value)
        for native, name in names.items():
            kind = gguf.GGMLQuantizationType[tensor_type(shapes[native], file_type)]
            size = prod(gguf.quant_shape_to_byte_shape(shapes[native], kind))
            writer.add_tensor_info(name, shapes[native], np.dtype(np.float32), size, raw_dtype=kind)
        writer.write_header_to_file(partial)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for native, name in names.items():
            weight = _read(stored[native].file, exported[native])
            if native in permutations:
                weight = weight[permutations[native]]
            writer.write_tensor_data(packed(weight, name, tensor_type(shapes[native], file_type)))


def stop_ids(folder: Path) -> list[int]:
    """Return the ids that end a text of a release, the usual one first."""
    stops = read_json(folder / GENERATION_FILE)["eos_token_id"]
    return stops if isinstance(stops, list) else [stops]


def _tokenizer(folder: Path, rows: int) -> dict[str, Any]:
    """Return what the tokenizer's files and the chat template say."""
    tokenizer, template = load_tokenizer(folder), folder / CHAT_TEMPLATE_FILE
    entries = tokenizer_metadata(tokenizer, read_specials(folder, tokenizer), stop_ids(folder), rows)
    return entries | ({"tokenizer.chat_template": read_template(template)} if template.is_file() else {})


def _add(writer: Any, key: str, value: Any) -> None:
    """Add an entry; whole numbers are uint32, as llama.cpp reads them."""
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)


def _read(file: Path, name: str) -> Tensor:
    """Return one tensor of a safetensors file."""
    with open_safetensors(file, framework="pt") as opened:
        return opened.get_tensor(name)
