"""The headers of a folder's safetensors files: every tensor's name, shape and type, while no tensor is read.

A config can ask for a model of any size, and whoever builds it finds out by running out of memory. The files cannot
hold more than they have bytes, so a config is compared with them first.
"""

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import safe_open

from lilliput.base.errors import RunError, reading
from lilliput.base.limits import limit, plain_name, raising
from lilliput.base.untrusted import read_object, shown

WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
HINT = "publish the model again, or fetch the folder again"
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""Names under which configs say how deep a model is."""
WIDTHS = ("hidden_size", "n_embd", "d_model", "dim")
"""And how wide its stream is."""
_INNER = ("intermediate_size", "n_inner", "ffn_dim", "num_key_value_heads")
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_HEAD_WIDTHS = ("head_dim",)
_EMBEDDED = ("embedding_size", "word_embed_proj_dim")
"""The width of the embedding where it is another one."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A tensor as the header of its file has it."""

    shape: tuple[int, ...]
    dtype: str
    """Name of the type in safetensors: F32, BF16, I8, ..."""
    file: Path

    @property
    def elements(self) -> int:
        """Numbers in it."""
        return prod(self.shape)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: the only one, or those that its index names.

    Raises:
        RunError: there is none, one of them is missing, or the index is damaged.
        LilliputError: the index names a file elsewhere.
    """
    names = [WEIGHTS_FILE]
    index = folder / WEIGHTS_INDEX
    if not (folder / WEIGHTS_FILE).is_file() and index.is_file():
        files = read_object(index, HINT).get("weight_map")
        if not isinstance(files, dict) or not files:
            raise RunError(f"its weight_map is {shown(files)}", where=str(index), hint=HINT)
        names = sorted({plain_name(name, where=str(index)) for name in files.values()})
    for name in names:
        if not (folder / name).is_file():
            raise RunError(
                f"{name} is missing",
                where=str(folder),
                hint="fetch the folder again; only weights in the safetensors format can be read",
            )
    return [folder / name for name in names]


def read_headers(folder: Path) -> dict[str, Stored]:
    """All tensors of a folder by name.

    Raises:
        RunError: a file is missing or damaged, or two of them hold a tensor of the same name.
    """
    stored: dict[str, Stored] = {}
    for path in weight_files(folder):
        with open_safetensors(path, framework="np") as file:
            for key in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                if key in stored:
                    raise RunError(f"{shown(key)} is in {stored[key].file.name} too", where=str(path), hint=HINT)
                tensor = file.get_slice(key)
                stored[key] = Stored(shape=tuple(tensor.get_shape()), dtype=str(tensor.get_dtype()), file=path)
    return stored


@contextmanager
def open_safetensors(path: Path, framework: str) -> Iterator[Any]:
    """A safetensors file, whose header was found whole.

    Raises:
        RunError: it is damaged, or its header is larger than a model's.
    """
    with reading(str(path), HINT):
        with open(path, "rb") as file:
            length = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))[0]
        if limit("header_bytes") < length <= path.stat().st_size:
            raise RunError(f"the header has {length:,} bytes", where=str(path), hint=raising("header_bytes"))
        try:
            handle = safe_open(path, framework=framework)
        except Exception as error:
            raise RunError(f"{path.name} cannot be read ({error})", where=str(path), hint=HINT) from error
        with handle as file:
            yield file


def check_weights_cover(folder: Path) -> None:
    """Refuse a config that asks for more than the files hold, of whatever architecture it is.

    A model has at least one tensor a layer, an axis as long as its stream is wide, and one as long as its vocabulary.

    Raises:
        RunError: it asks for more, or a file is missing or damaged.
    """
    path = folder / "config.json"
    config, stored = read_object(path, "fetch the folder again"), read_headers(folder)
    longest = max((length for tensor in stored.values() for length in tensor.shape), default=0)
    elements = sum(tensor.elements for tensor in stored.values())
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for key in LAYERS:
            _check(path, key, part.get(key), len(stored), "tensors in all")
        for key in ("vocab_size", *WIDTHS, *_INNER, *_HEADS, *_HEAD_WIDTHS):
            _check(path, key, part.get(key), longest, "numbers along the longest axis")
        heads, head_width = _first(part, _HEADS), _first(part, _HEAD_WIDTHS)
        _check(path, "all heads together", heads * head_width, longest, "numbers along the longest axis")
        width = _first(part, _EMBEDDED) or _first(part, WIDTHS)
        vocab = _first(part, ("vocab_size",))
        if vocab and width:
            _check(path, "vocab_size times the width", vocab * width, elements, "numbers in all")


def _check(path: Path, key: str, value: Any, most: int, of: str) -> None:
    if isinstance(value, int) and value > most:
        raise RunError(
            f"{key} is {shown(value)}, but the files of weights have {most:,} {of}",
            where=str(path),
            hint="fetch the folder again: its config and its weights do not belong together",
        )


def _first(config: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    return next((value for key in keys if isinstance(value := config.get(key), int)), 0)
