"""Products with 8-bit weights: whole numbers from -127 to 127, and one scale for each output channel.

    W[e, d] = scale[e] * values[e, d]        scale[e] = max |W[e]| / 127

One position reads each weight once, so that a product takes as long as its bytes: half those of 16 bits.

Shapes: D input channels, E outputs.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lilliput.ops.dispatch import Backend as Backend
from lilliput.ops.dispatch import check_backend
from lilliput.ops.matvec import is_few, matvec

FEW = 4
"""Positions up to which PyTorch's product of bf16 activations is faster than one with the dense weight."""


class Int8Weight(NamedTuple):
    """A weight [E, D] in 8 bits."""

    values: Tensor
    """[E, D] int8."""
    scale: Tensor
    """[E] fp32."""

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    @property
    def dtype(self) -> torch.dtype:
        """fp32, which is what a product with it comes in."""
        return torch.float32

    @property
    def device(self) -> torch.device:
        return self.values.device

    @property
    def is_cuda(self) -> bool:
        return self.values.is_cuda

    def dense(self) -> Tensor:
        """The weight in fp32, [E, D]."""
        return self.values.float() * self.scale[:, None]


def quantize(weight: Tensor) -> Int8Weight:
    """Round a weight [E, D] to 8 bits, each output channel by its largest entry."""
    wide = weight.detach().float()
    scale = (wide.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    return Int8Weight(torch.round(wide / scale[:, None]).to(torch.int8), scale)


def int8_linear(x: Tensor, weight: Int8Weight, backend: Backend = Backend.AUTO) -> Tensor:
    """Multiply x [..., D] by a weight [E, D]: [..., E] in fp32; for fp64, in fp64.

    Args:
        x: positions.
        weight: in 8 bits.
        backend: `REFERENCE` multiplies by the dense weight; `SUM` is for few positions in a compiled function;
            `TORCH` is PyTorch's product of bf16 activations, on a processor; `AUTO` takes what is fastest here.
    """
    check_backend("int8_linear", backend, Backend.SUM, Backend.TORCH)
    wide = x if x.dtype == torch.float64 else x.float()
    if backend is Backend.AUTO:
        backend = _fastest(x)
    if backend is Backend.SUM:
        return matvec(wide, weight.values) * weight.scale
    if backend is Backend.TORCH:
        narrow = wide.reshape(-1, wide.shape[-1]).bfloat16()
        ones = torch.ones_like(weight.scale, dtype=torch.bfloat16)  # scales of 16 bits would be another rounding
        made = torch.ops.aten._weight_int8pack_mm(narrow, weight.values, ones).float() * weight.scale
        return made.reshape(*x.shape[:-1], -1)
    return F.linear(wide, weight.values.to(wide.dtype)) * weight.scale


def _fastest(x: Tensor) -> Backend:
    if x.dtype == torch.float64:
        return Backend.REFERENCE
    if is_few(x):
        return Backend.SUM
    is_torch = not x.is_cuda and x.numel() <= FEW * x.shape[-1] and not torch.compiler.is_compiling()
    return Backend.TORCH if is_torch else Backend.REFERENCE
