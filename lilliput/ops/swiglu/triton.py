"""A gated feed-forward layer behind its first product as Triton kernels, for CUDA and ROCm devices.

For the backward pass the projection is kept. One kernel reads it there, once, with the gradient of the activation, and
writes the activation again, for the gradient of the weight, and the projection's gradient as one tensor. Products are
PyTorch's, and anyone who watches or compiles sees them, but for one that is narrow (`triton_product`).

`fused` goes into the compiler's graph whole. Where it follows autograd functions by itself, PyTorch 2.11 can make wrong
gradients if the forward pass has two names for one tensor (pytorch/pytorch#180642), and a conversion to the precision
that is there already gives a second name.

Shapes: D channels of the stream, I inner ones.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from triton import knobs

from lilliput.ops.compiler import called_as_it_is, operator
from lilliput.ops.swiglu.reference import Activation
from lilliput.ops.swiglu.triton_gated import gated_gradients_kernel, gated_kernel
from lilliput.ops.swiglu.triton_product import down_proj, is_supported

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
TILE = (16, 128)
"""Positions and channels of a program: 16 numbers a thread of each tensor. In 16 bits, where rows begin at multiples of
16 bytes, every access has 128 bits, the forward kernel 35 registers at most, the other one 64 (sm_90, Triton 3.6)."""
WARPS = 4


@called_as_it_is
def swiglu_triton(projected: Tensor, down: Tensor, onto: Tensor | None, activation: Activation | None) -> Tensor:
    """[..., 2 I], [D, I] and [..., D] or None -> [..., D]; see `lilliput.ops.swiglu.swiglu`."""
    # Cast where autograd sees it: the weight's gradient is rounded as that of any other product.
    return _Behind.apply(projected, down.to(projected.dtype), onto, activation)  # type: ignore[no-any-return]


class _Behind(torch.autograd.Function):
    """From a projection through the last product, and onto a stream; projection and weight are of one dtype."""

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, down: Tensor, onto: Tensor | None, activation: Activation | None
    ) -> Tensor:
        ctx.save_for_backward(projected, down)
        ctx.activation = activation
        if is_supported(projected, down):
            return down_proj(projected, down, onto, activation)
        made = F.linear(activate(projected, activation), down)
        return made if onto is None else onto + made

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:  # type: ignore[override]
        projected, down = ctx.saved_tensors
        narrow = grad.to(projected.dtype)
        between = narrow @ down
        grad_projected = differentiate(projected, between, ctx.activation)  # it is the activation from here on
        grad_down = narrow.flatten(0, -2).T @ between.flatten(0, -2)
        return grad_projected, grad_down, grad if ctx.needs_input_grad[2] else None, None


@operator("lilliput::gated")
def activate(projected: Tensor, activation: str | None) -> Tensor:
    """gated(gate, up) [..., I] of both side by side [..., 2 I]. The operator itself has no gradient."""
    projected, activated = projected.contiguous(), _empty(projected)
    _launch(gated_kernel, projected, activated, activation=activation)
    return activated


@operator("lilliput::gated_gradients", mutates_args=("between",))
def differentiate(projected: Tensor, between: Tensor, activation: str | None) -> Tensor:
    """The gradient of the projection [..., 2 I] from that of the activation `between` [..., I].

    That one gives its place to the activation itself: each program reads its part before it writes it.
    """
    projected, grad_projected = projected.contiguous(), projected.new_empty(projected.shape)
    assert between.is_contiguous()
    _launch(gated_gradients_kernel, projected, between, grad_projected, activation=activation)
    return grad_projected


def _empty(projected: Tensor) -> Tensor:
    return projected.new_empty(*projected.shape[:-1], projected.shape[-1] // 2)


def _launch(kernel: Any, projected: Tensor, *others: Tensor, activation: str | None) -> None:
    assert projected.dtype in DTYPES and (projected.is_cuda or knobs.runtime.interpret)
    inner, (rows, columns) = projected.shape[-1] // 2, TILE
    total = projected.numel() // projected.shape[-1]
    with torch.cuda.device_of(projected):
        kernel[(-(-total // rows) * -(-inner // columns),)](
            projected, *others, total, INNER=inner, ROWS=rows, COLUMNS=columns, SQUARE=activation, num_warps=WARPS
        )


@activate.register_fake
def _(projected: Tensor, activation: str | None) -> Tensor:
    return _empty(projected)


@differentiate.register_fake
def _(projected: Tensor, between: Tensor, activation: str | None) -> Tensor:
    return projected.new_empty(projected.shape)
