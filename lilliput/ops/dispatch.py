"""What the dispatchers of operations have in common."""

from enum import Enum
from importlib.util import find_spec

TRITON_HERE = find_spec("triton") is not None
"""Builds of PyTorch for CUDA and ROCm bring it; it is imported with the first operation that could use it."""


class Backend(Enum):
    """Which implementation of a composed operation runs; `AUTO` picks the fastest one for the input."""

    AUTO = "auto"
    COMPOSED = "composed"
    TRITON = "triton"
