"""Streams so narrow that products wait for memory, which are worth kernels that hold whole rows of them."""

import torch
from torch import Tensor
from triton import knobs

from lilliput.ops.dispatch import is_hopper

INTERPRETED = knobs.runtime.interpret
WIDTHS = (64, 128, 256)
DTYPE = torch.float32 if INTERPRETED else torch.bfloat16
"""Supported type. In fp16 the inputs of a product must be observed (`train/fp16_range.py`); Triton's interpreter
multiplies no bf16.
"""


def supports_small_width(x: Tensor, width: int) -> bool:
    """Return whether kernels take what x [...] becomes in a stream of `width` channels, on devices they were measured
    on.

    Their tiles take up to 224 KiB of a multiprocessor, which smaller devices do not have.
    """
    return (is_hopper(x.device) or INTERPRETED) and width in WIDTHS and x.dtype == DTYPE
