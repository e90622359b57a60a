"""Root-mean-square norms in front of a product, differentiated from what they return.

    n = x / sqrt(mean x^2 + eps)    dx = (dn - n mean(dn n)) / sqrt(mean x^2 + eps)

The product behind a norm keeps n anyway, for the gradient of its weight. So x is not kept, and n is not made again.

Shape: any leading, D last.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lilliput.ops.linear import as_one, of_products
from lilliput.ops.softcap import wide


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """x [..., D], normed in fp32, or fp64 for fp64, times a gain [D], in its dtype."""
    return F.rms_norm(wide(x), gain.shape, gain.to(wide(x).dtype), eps).to(x.dtype)


def parts(x: Tensor, gain: Tensor, eps: float) -> tuple[Tensor, Tensor | None]:
    """x [..., D], normed for products, and the gain [D] left for their weights; None where x was multiplied."""
    return (normed(x, eps, of_products(x)), gain) if as_one(x) else (rms_norm(x, gain, eps), None)


@torch.compiler.allow_in_graph
def normed(x: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """x [..., D], normed in fp32, or fp64 for fp64, as `dtype`."""
    return _Normed.apply(x, eps, dtype)  # type: ignore[no-any-return]


def scaled(x: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The same, without a gradient, and the scales [..., 1] in fp32, or fp64 for fp64."""
    scale = torch.rsqrt(wide(x).square().mean(dim=-1, keepdim=True) + eps)
    return (wide(x) * scale).to(dtype), scale


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        n, scale = scaled(x, eps, dtype)
        ctx.save_for_backward(n, scale)
        ctx.dtype = x.dtype
        return n

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        n, scale = ctx.saved_tensors
        n, grad = wide(n), wide(grad)
        return ((grad - n * (grad * n).mean(dim=-1, keepdim=True)) * scale).to(ctx.dtype), None, None
