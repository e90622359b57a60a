"""Reads a release's file of 8-bit weights, `int8.safetensors`, which `int8/release.py` writes.

It holds the tensors of the decoding copy: 8-bit values and their scales of all that `nn.decoding_copy` rounds, and the
rest in fp32. Tokenizer, chat template and settings are the folder's. Nothing but Lilliput reads it.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from lilliput.base.errors import RunError, reading
from lilliput.base.safetensors_headers import HINT, open_safetensors
from lilliput.base.untrusted import shown
from lilliput.model import LanguageModel, ModelSpec
from lilliput.nn.decoding_copy import decoding_copy
from lilliput.publish.weights import check_depth, skeleton

INT8_FILE = "int8.safetensors"


def read_int8(folder: Path, spec: ModelSpec) -> LanguageModel:
    """The model of a release, in evaluation mode with 8-bit weights on the CPU: the decoding copy of its model.

    No weight is made wider, so that there is never an fp32 model in memory.

    Args:
        folder: holds the file.
        spec: the shape.

    Raises:
        RunError: the file is missing or damaged, or holds other weights than those of this shape.
    """
    path = folder / INT8_FILE
    with reading(str(path), HINT), open_safetensors(path, framework="pt") as file:
        stored = set(file.keys())
        check_depth(spec, len(stored), folder)
        model = decoding_copy(skeleton(spec, folder).eval(), int8=True)
        expected = model.state_dict()
        if odd := stored ^ expected.keys():
            raise RunError(
                f"it holds other weights than the model has: {', '.join(map(shown, sorted(odd)[:4]))}",
                where=str(path),
                hint=HINT,
            )
        tensors = {name: _read(file, name, weight, path) for name, weight in expected.items()}
        model.load_state_dict(tensors, assign=True)
    return model


def _read(file: Any, name: str, expected: Tensor, path: Path) -> Tensor:
    """A tensor in storage of its own, of the shape and the type that the model has."""
    shape = file.get_slice(name).get_shape()
    if list(shape) != list(expected.shape):
        raise RunError(
            f"a weight does not have the model's shape: {name} {shape}, not {list(expected.shape)}",
            where=str(path),
            hint=HINT,
        )
    tensor = file.get_tensor(name).clone()
    if tensor.dtype != expected.dtype:
        raise RunError(f"{name} is {tensor.dtype}, not {expected.dtype}", where=str(path), hint=HINT)
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise RunError(f"{name} holds numbers that are not finite", where=str(path), hint=HINT)
    return tensor
