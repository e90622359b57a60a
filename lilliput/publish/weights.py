"""The safetensors files of a Hugging Face folder, one or several, as the weights of a native model."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lilliput.base.errors import RunError
from lilliput.base.files import read_json
from lilliput.model import LanguageModel, ModelSpec
from lilliput.publish.layouts.layout import Layout

WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
HINT = "publish the model again, or fetch the folder again"
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_COMPUTED = re.compile(r"\.rotary_emb\.inv_freq$")
"""Buffers that old checkpoints store and every model computes."""


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: the only one, or those that its index names.

    Raises:
        RunError: there is none, or one of them is missing.
    """
    names = [WEIGHTS_FILE]
    if not (folder / WEIGHTS_FILE).is_file() and (folder / WEIGHTS_INDEX).is_file():
        try:
            names = sorted(set(read_json(folder / WEIGHTS_INDEX)["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise RunError(
                f"{WEIGHTS_INDEX} cannot be read ({error})", where=str(folder / WEIGHTS_INDEX), hint=HINT
            ) from error
    for name in names:
        if not (folder / name).is_file():
            raise RunError(
                f"{name} is missing",
                where=str(folder),
                hint="fetch the folder again; weights in another format than safetensors are not read",
            )
    return [folder / name for name in names]


def read_weights(folder: Path, spec: ModelSpec, layout: Layout) -> LanguageModel:
    """The model of a folder, in fp32 on the CPU.

    Tensors are read one by one, so that a checkpoint of any precision needs no room beside the model.

    Raises:
        RunError: a file is missing or damaged, or holds other weights than the layout names for this shape.
    """
    native = {exported: name for name, exported in layout.names(spec).items()}
    unstored = {"lm_head.weight"} if spec.tie_embeddings else set()  # some store a tied head all the same
    weights: dict[str, Tensor] = {}
    odd: set[str] = set()
    for path in weight_files(folder):
        with _opened(path) as file:
            for key in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                if key in native:
                    weights[native[key]] = _as_fp32(file.get_tensor(key), key, path)
                elif key not in unstored and not _COMPUTED.search(key):
                    odd.add(key)
    odd |= {exported for exported, name in native.items() if name not in weights}
    if odd:
        raise RunError(
            f"{path.name} holds other weights than its layout names: {', '.join(sorted(odd)[:4])}",
            where=str(folder),
            hint=HINT,
        )
    model = spec.skeleton()
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise RunError(f"a weight has another shape than the model ({error})", where=str(folder), hint=HINT) from error
    with torch.no_grad():
        for name, order in layout.orders(spec).items():
            weight = model.get_parameter(name)
            weight.copy_(weight[order.argsort()])
    return model


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise RunError(f"{path.name} cannot be read ({error})", where=str(path), hint=HINT) from error


def _as_fp32(weight: Tensor, name: str, path: Path) -> Tensor:
    """A copy in storage of its own: a model that trains must not write through to a file, nor fall with it."""
    if weight.dtype not in _FLOATS:
        raise RunError(
            f"{name} is stored as {str(weight.dtype).removeprefix('torch.')}",
            where=str(path),
            hint="give weights in bf16, fp16 or fp32: quantised ones cannot be read",
        )
    return weight.to(torch.float32, copy=True)
