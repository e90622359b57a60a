"""Products with weights: several of one input as one, and those with factors, in the form that is faster.

A factor is a gain of the input's channels or a number for all that comes out. Its gradient is a sum over all that it
multiplies. Where this is what goes in or comes out, there is one more tensor to keep, to read and to sum over all
positions. Where it is the weight there is none, and the sum is equal but for rounding. A few positions are less to
multiply than a weight.

Shapes: D input channels, E outputs.
"""

from typing import NamedTuple, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from lilliput.ops.int8_linear import Int8Weight, int8_linear
from lilliput.ops.matvec import is_few, matvec

Weight = Tensor | Int8Weight
"""The matrix of a product, [E, D]; in 8 bits for decoding alone."""

TOGETHER = 1024
"""Positions from which on a product is worth another form of its weights; a decode step would only copy them."""

WIDENED = 16
"""Positions from which on a processor multiplies weights in fp16 sooner after it has made fp32 of them: it has products
of fp16 for a position, and none of whole prompts (OdinNext-138M reads 512 tokens in 1.0 s so, and took 3.0; two cores
with AVX-512 and bf16, which they multiply as it is)."""


def linear(x: Tensor, weight: Weight) -> Tensor:
    """Project x [..., D] by a weight [E, D]: [..., E], in the weight's precision unless autocast says which.

    A stream in fp32 meets weights of 16 bits where a model is cast as a whole, to decode. In a compiled step on a
    processor a few positions are multiplied in fp32, and what comes out is fp32: to round either only takes time.
    """
    if isinstance(weight, Int8Weight):
        return int8_linear(x, weight)
    if weight.dtype in (torch.float16, torch.bfloat16) and not weight.is_cuda and is_few(x):
        return matvec(x.float(), weight)
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        x = x.to(weight.dtype)
    if weight.dtype == torch.float16 and not weight.is_cuda and x.numel() >= WIDENED * x.shape[-1]:
        return F.linear(x.float(), weight.float()).to(weight.dtype)
    return F.linear(x, weight)


def linear_in_fp32(x: Tensor, weight: Weight) -> Tensor:
    """The same product, its sums as they are added up where the device gives them: on CUDA in fp32.

    Logits in bf16 have steps of 1/16 between 8 and 16, so that the likeliest token is often a tie.
    """
    narrow = isinstance(weight, Tensor) and weight.is_cuda and weight.dtype in (torch.bfloat16, torch.float16)
    if not narrow or torch.is_autocast_enabled("cuda") or torch.is_grad_enabled():
        return linear(x, weight)
    flat = x.to(weight.dtype).flatten(0, -2)
    return torch.mm(flat, weight.mT, out_dtype=torch.float32).unflatten(0, x.shape[:-1])  # type: ignore[union-attr]


def fused_linear(x: Tensor, *weights: Weight, gain: Tensor | None = None) -> Tensor:
    """Project x [..., D], times a gain [D] or 1, by each weight [E_i, D], side by side: [..., sum of E_i]."""
    if should_fuse(x):
        return linear(x, scale_weight(concatenated(*weights), gain))
    return torch.cat([linear(x, scale_weight(weight, gain)) for weight in weights], dim=-1)


class LinearOutput(NamedTuple):
    """A product that is still to be made."""

    x: Tensor
    """[..., D]."""
    weight: Weight
    scale: Tensor | None = None
    """A number that all of it is multiplied by; None for 1."""

    def materialize(self) -> Tensor:
        """[..., E]."""
        if self.scale is None or should_fuse(self.x):
            return linear(self.x, scale_weight(self.weight, self.scale))
        return self.scale * linear(self.x, self.weight)


@overload
def scale_weight(weight: Tensor, factor: Tensor | None) -> Tensor: ...
@overload
def scale_weight(weight: Weight, factor: Tensor | None) -> Weight: ...
def scale_weight(weight: Weight, factor: Tensor | None) -> Weight:
    """A weight [E, D] times a gain [D], a number, or 1, in its dtype; one of 8 bits in fp32."""
    if factor is None:
        return weight
    return factor * weight.dense() if isinstance(weight, Int8Weight) else (factor * weight).to(weight.dtype)


def concatenated(*weights: Weight) -> Weight:
    """Weights [E_i, D] as one, [sum of E_i, D]."""
    if len(weights) == 1:
        return weights[0]
    narrow = [weight for weight in weights if isinstance(weight, Int8Weight)]
    if not narrow:
        return torch.cat(weights)  # type: ignore[arg-type]
    return Int8Weight(torch.cat([weight.values for weight in narrow]), torch.cat([weight.scale for weight in narrow]))


def matmul_dtype(x: Tensor) -> torch.dtype:
    """Return what products with x are made of here: its own precision, or that of an autocast region around."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def should_fuse(x: Tensor) -> bool:
    """Return whether projections of x are one product, and numbers multiply its weight."""
    return x.is_cuda and x.numel() >= TOGETHER * x.shape[-1]
