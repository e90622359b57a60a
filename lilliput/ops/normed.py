"""Root-mean-square norm without a gain, whose gradient is made from what it returned.

    n = x / sqrt(mean x^2 + eps)    dx = (dn - n mean(dn n)) / sqrt(mean x^2 + eps)

The product behind a norm keeps n anyway, for the gradient of its weight. So x is not kept, and n is not made again.

Shape: any leading, D last.
"""

from typing import Any

import torch
from torch import Tensor


@torch.compiler.allow_in_graph
def normed(x: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """x [..., D], normed in fp32, or fp64 for fp64, as `dtype`."""
    return _Normed.apply(x, eps, dtype)  # type: ignore[no-any-return]


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        wide = _wide(x)
        scale = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
        n = (wide * scale).to(dtype)
        ctx.save_for_backward(n, scale)
        ctx.dtype = x.dtype
        return n

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        n, scale = ctx.saved_tensors
        n, grad = _wide(n), _wide(grad)
        return ((grad - n * (grad * n).mean(dim=-1, keepdim=True)) * scale).to(ctx.dtype), None, None


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
