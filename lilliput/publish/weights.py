"""The safetensors files of a Hugging Face folder, one or several, as the weights of a native model."""

import re
from pathlib import Path

import torch
from torch import Tensor

from lilliput.base.errors import LilliputError, RunError, reading
from lilliput.base.limits import limit, raising
from lilliput.base.safetensors_headers import HINT, Stored, open_safetensors, read_headers
from lilliput.base.untrusted import shown
from lilliput.model import LanguageModel, ModelSpec
from lilliput.publish.hf_formats.format import HFFormat

FLOATS = ("F32", "BF16", "F16")
_COMPUTED = re.compile(r"\.rotary_emb\.inv_freq$")
"""Buffers that old checkpoints store and every model computes."""


def check_header(folder: Path, spec: ModelSpec, layout: HFFormat) -> dict[str, Stored]:
    """Return what the files store of each native parameter, found to be the weights of this shape; no tensor is read.

    Args:
        folder: holds the files.
        spec: the shape.
        layout: the architecture, which names the tensors.

    Raises:
        RunError: a file is missing or damaged, or holds other weights than the layout names for this shape.
    """
    with reading(str(folder), HINT):
        header = read_headers(folder)
        check_depth(spec, len(header), folder)  # before as many names are written out
        names = layout.names(spec)
        unstored = {"lm_head.weight"} if spec.tie_embeddings else set()  # some store a tied head all the same
        expected = set(names.values())
        odd = {key for key in header.keys() - expected - unstored if not _COMPUTED.search(key)}
        if odd := odd | (expected - header.keys()):
            raise RunError(
                f"the files hold weights that the layout does not name: {', '.join(map(shown, sorted(odd)[:4]))}",
                where=str(folder),
                hint=HINT,
            )
        stored = {native: header[exported] for native, exported in names.items()}
        for native, weight in skeleton(spec, folder).state_dict().items():
            _check(names[native], stored[native], tuple(weight.shape))
        return stored


def read_weights(folder: Path, spec: ModelSpec, layout: HFFormat) -> LanguageModel:
    """The model of a folder, in fp32 on the CPU.

    Tensors are read one by one, so that a checkpoint of any precision needs no room beside the model.

    Args:
        folder: holds the files.
        spec: the shape.
        layout: the architecture, which names the tensors.

    Raises:
        RunError: a file is missing or damaged, holds other weights than the layout names for this shape, or numbers
            that are not finite.
    """
    stored = check_header(folder, spec, layout)
    with reading(str(folder), HINT):
        native = {exported: name for name, exported in layout.names(spec).items()}
        weights: dict[str, Tensor] = {}
        for path in sorted({weight.file for weight in stored.values()}):
            with open_safetensors(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                    if key in native:
                        weights[native[key]] = _as_fp32(file.get_tensor(key), key, path)
        model = spec.skeleton()
        model.load_state_dict(weights, assign=True)
        with torch.no_grad():
            for name, order in layout.row_permutations(spec).items():
                weight = model.get_parameter(name)
                weight.copy_(weight[order.argsort()])
    return model


def check_depth(spec: ModelSpec, tensors: int, folder: Path) -> None:
    """Refuse a shape of more layers than files with so many tensors can hold, before anything is made of it.

    Raises:
        RunError: it has more.
    """
    if spec.layers > min(tensors, limit("model_layers")):
        raise RunError(
            f"the model has {spec.layers:,} layers, its files {tensors:,} tensors",
            where=str(folder),
            hint=HINT if spec.layers > tensors else raising("model_layers"),
        )


def skeleton(spec: ModelSpec, folder: Path) -> LanguageModel:
    """The model on the meta device.

    Raises:
        RunError: it has sizes that no tensor can have.
    """
    try:
        return spec.skeleton()
    except LilliputError:
        raise
    except Exception as error:
        raise RunError(f"no model has this shape ({error!s:.200})", where=str(folder), hint=HINT) from error


def _check(name: str, stored: Stored, shape: tuple[int, ...]) -> None:
    if stored.shape != shape:
        raise RunError(
            f"a weight does not have the model's shape: {name} {list(stored.shape)}, not {list(shape)}",
            where=str(stored.file),
            hint=HINT,
        )
    if stored.dtype not in FLOATS:
        raise RunError(
            f"{name} is stored as {stored.dtype}",
            where=str(stored.file),
            hint="give weights in bf16, fp16 or fp32: quantized ones cannot be read",
        )


def _as_fp32(weight: Tensor, name: str, path: Path) -> Tensor:
    """A copy in storage of its own: a model that trains must not write through to a file, nor fall with it."""
    copy = weight.to(torch.float32, copy=True)
    if not all(bound.isfinite() for bound in copy.aminmax()):
        raise RunError(
            f"{name} holds numbers that are not finite",
            where=str(path),
            hint="take an earlier checkpoint: training that diverged leaves such weights",
        )
    return copy
