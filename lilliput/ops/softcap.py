"""A bound that numbers come near to and never pass: c tanh(x / c) (Gemma 2, arXiv 2408.00118)."""

import torch
from torch import Tensor


def softcap(x: Tensor, cap: float) -> Tensor:
    """x [...] bent into (-cap, cap), in fp32 (fp64 for fp64 input); small numbers stay as they are."""
    return cap * torch.tanh(to_fp32(x) / cap)


def to_fp32(x: Tensor) -> Tensor:
    """x in fp32, or fp64 as it is."""
    return x if x.dtype == torch.float64 else x.float()
