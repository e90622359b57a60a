"""Backends of operations, and the device classes that kernels have tile configs for."""

from enum import Enum
from importlib.util import find_spec

import torch

from lilliput.base.errors import MachineError
from lilliput.ops.compiler import constant_when_compiled

TRITON_HERE = find_spec("triton") is not None
"""Builds of PyTorch for CUDA and ROCm bring it; it is imported with the first operation that could use it."""


class Backend(Enum):
    """Implementations of operations. Each operation has a reference and some of the others."""

    AUTO = "auto"
    """The fastest one for the input, never `FLA`."""
    REFERENCE = "reference"
    """The specification: the naive form, or what the operation is composed of."""
    CHUNK = "chunk"
    """Plain PyTorch, a chunk at a time."""
    TORCH = "torch"
    """PyTorch's own fused form."""
    SUM = "sum"
    """A sum of products, which a compiler fuses with what makes them."""
    TRITON = "triton"
    """Kernels of ours."""
    FLA = "fla"
    """Kernels of flash-linear-attention, to compare with."""


def check_backend(op: str, backend: Backend, *others: Backend) -> None:
    """Refuse a backend that an operation does not have.

    Args:
        op: its name.
        backend: that was asked for.
        others: that it has besides the reference.

    Raises:
        MachineError: it has no such backend.
    """
    known = (Backend.AUTO, Backend.REFERENCE, *others)
    if backend not in known:
        raise MachineError(
            f"{op} has no backend {backend.value!r}",
            where=f"{op}(backend=Backend.{backend.name})",
            hint=f"one of: {', '.join(one.value for one in known)}",
        )


@constant_when_compiled  # the compiler of PyTorch cannot ask what kind of device it is
def is_hopper(device: torch.device) -> bool:
    """Return whether it is an H100, an H200 or their like, on which tile configs were measured."""
    return device.type == "cuda" and not torch.version.hip and torch.cuda.get_device_capability(device)[0] == 9
