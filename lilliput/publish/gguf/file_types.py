"""Numbers of a GGUF file: which type each tensor is stored in, and what it is rounded to.

As llama.cpp's own converter and quantizer have it: F16 or Q8_0 (blocks of 32 numbers of a row, of 8 bits each, with one
fp16 scale) for every matrix, the embedding and the head among them, since both read them as they read any other; fp32
for norms, which are small and which llama.cpp multiplies in fp32. Rows that are no whole blocks stay F16.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from lilliput.base.errors import ExportError

FileType = Literal["F16", "Q8_0"]
FILE_TYPES: tuple[FileType, ...] = get_args(FileType)
BLOCK = 32
"""Numbers that share a scale in Q8_0."""


def library() -> Any:
    """Return the package `gguf`.

    Raises:
        ExportError: it is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise ExportError(
            "the package gguf is not installed",
            where="the format gguf of a release",
            hint="pip install 'lilliput[gguf]'",
        ) from error
    return gguf


def tensor_type(shape: tuple[int, ...], file_type: FileType) -> str:
    """Name of the type that a tensor of a shape has in a file."""
    if len(shape) < 2:
        return "F32"
    return "F16" if shape[-1] % BLOCK else file_type


def packed(weight: Tensor, name: str, kind: str) -> np.ndarray[Any, Any]:
    """Return the bytes or numbers of a tensor as a file holds them.

    Args:
        weight: the tensor, on the CPU.
        name: in GGUF, for the error.
        kind: one of `tensor_type`.

    Raises:
        ExportError: a number does not fit.
    """
    gguf = library()
    wide = weight.float()
    if kind != "F32" and not wide.half().isfinite().all():
        raise ExportError(
            f"{int((~wide.half().isfinite()).sum()):,} of {wide.numel():,} numbers are too large for {kind}",
            where=f"the tensor {name} of a GGUF file",
            hint="publish it as hf alone: a weight beyond 65,504 is more than fp16 holds",
        )
    return gguf.quants.quantize(wide.contiguous().numpy(), gguf.GGMLQuantizationType[kind])


def unpacked(stored: Any) -> Tensor:
    """Return the numbers of a tensor as a reader of `gguf` gives it, in fp32."""
    gguf = library()
    numbers = gguf.quants.dequantize(stored.data, stored.tensor_type)
    return torch.from_numpy(np.array(numbers, dtype=np.float32))  # a copy: the file may go


def as_stored(weights: Mapping[str, Tensor], file_type: FileType) -> dict[str, Tensor]:
    """Return weights as they are after a file of a type has rounded them."""
    gguf = library()
    rounded = {}
    for name, weight in weights.items():
        kind = tensor_type(tuple(weight.shape), file_type)
        numbers = gguf.quants.dequantize(packed(weight, name, kind), gguf.GGMLQuantizationType[kind])
        rounded[name] = torch.from_numpy(numbers.astype(np.float32))
    return rounded
