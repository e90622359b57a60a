"""Root-mean-square norms in front of a product, differentiated from what they return.

    n = x / sqrt(mean x^2 + eps)    dx = (dn - n mean(dn n)) / sqrt(mean x^2 + eps)

The product behind a norm keeps n anyway, for the gradient of its weight. So x is not kept, and n is not made again.

Shape: any leading, D last.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lilliput.ops.compiler import called_as_it_is
from lilliput.ops.linear import matmul_dtype, should_fuse
from lilliput.ops.softcap import to_fp32


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """x [..., D], normed in fp32, or fp64 for fp64, times a gain [D], in its dtype."""
    return F.rms_norm(to_fp32(x), gain.shape, gain.to(to_fp32(x).dtype), eps).to(x.dtype)


def norm_for_linear(x: Tensor, gain: Tensor, eps: float) -> tuple[Tensor, Tensor | None]:
    """x [..., D], normed for products, and the gain [D] left for their weights; None where x was multiplied."""
    return (rms_normalize(x, eps, matmul_dtype(x)), gain) if should_fuse(x) else (rms_norm(x, gain, eps), None)


@called_as_it_is
def rms_normalize(x: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """x [..., D], normed in fp32, or fp64 for fp64, as `dtype`."""
    return _Normed.apply(x, eps, dtype)  # type: ignore[no-any-return]


def rms_normalize_with_scale(x: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The same, without a gradient, and the scales [..., 1] in fp32, or fp64 for fp64."""
    scale = torch.rsqrt(to_fp32(x).square().mean(dim=-1, keepdim=True) + eps)
    return (to_fp32(x) * scale).to(dtype), scale


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        n, scale = rms_normalize_with_scale(x, eps, dtype)
        ctx.save_for_backward(n, scale)
        ctx.dtype = x.dtype
        return n

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        n, scale = ctx.saved_tensors
        n, grad = to_fp32(n), to_fp32(grad)
        return ((grad - n * (grad * n).mean(dim=-1, keepdim=True)) * scale).to(ctx.dtype), None, None
