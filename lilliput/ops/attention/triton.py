"""Attention from the projection on as Triton kernels, for CUDA and ROCm devices.

For the backward pass the projection is kept, the outputs and a log-sum-exp a query and head. Queries and keys are made
from the projection again, which at SLM-10M's shape spares 80 MiB a layer. The projection's gradient is written
as one tensor; values are read where they lie in it.
"""

from typing import Any

import torch
from torch import Tensor
from triton import knobs

from lilliput.ops.attend import triton as kernels
from lilliput.ops.attention.triton_heads import backward_kernel, forward_kernel
from lilliput.ops.rotate import turns

TILE = 4096
"""Numbers of heads that a program holds."""


def fits(projected: Tensor, width: int) -> bool:
    """Whether these kernels take such a projection."""
    return width in kernels.WIDTHS and projected.dtype in kernels.DTYPES


def fused(
    projected: Tensor,
    shared: int,
    width: int,
    gains: tuple[Tensor, Tensor] | None,
    eps: float,
    theta: float | None,
    segments: Tensor | None,
    cap: float | None,
) -> Tensor:
    """See `lilliput.ops.attention.attention`."""
    assert fits(projected, width) and (projected.is_cuda or knobs.runtime.interpret)
    query_gain, key_gain = (None, None) if gains is None else (gain.float() for gain in gains)
    return forward(projected, query_gain, key_gain, segments, shared, width, eps, theta, cap)[0]


@torch.library.custom_op("lilliput::attention", mutates_args=())
def forward(
    projected: Tensor,
    query_gain: Tensor | None,
    key_gain: Tensor | None,
    segments: Tensor | None,
    shared: int,
    width: int,
    eps: float,
    theta: float | None,
    cap: float | None,
) -> tuple[Tensor, Tensor]:
    """Outputs [B, L, H D], and log-sum-exps [B, H, L]."""
    projected = projected.contiguous()
    q, k, v = _Heads(projected, query_gain, key_gain, shared, width, eps, theta).forth()
    outputs, sums = kernels.outputs_of(q, k, v, kernels.spans(segments), cap)
    return outputs.flatten(-2), sums


@torch.library.custom_op("lilliput::attention_gradients", mutates_args=())
def backward(
    projected: Tensor,
    query_gain: Tensor | None,
    key_gain: Tensor | None,
    segments: Tensor | None,
    shared: int,
    width: int,
    eps: float,
    theta: float | None,
    cap: float | None,
    outputs: Tensor,
    sums: Tensor,
    grad_outputs: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of the projection, and of both gains [2, D]."""
    projected = projected.contiguous()
    ways = _Heads(projected, query_gain, key_gain, shared, width, eps, theta)
    outputs, grad_outputs = (x.unflatten(-1, (-1, width)) for x in (outputs, grad_outputs.contiguous()))
    grad = torch.empty_like(projected)
    kernels.gradients_of(
        *ways.forth(), kernels.spans(segments), cap, outputs, sums, grad_outputs, into=ways.apart(grad)
    )
    return grad, ways.back(grad)


class _Heads:
    """Both ways between a projection and its heads."""

    def __init__(
        self,
        projected: Tensor,
        query_gain: Tensor | None,
        key_gain: Tensor | None,
        shared: int,
        width: int,
        eps: float,
        theta: float | None,
    ):
        self.projected, self.gains = projected, (query_gain, key_gain)
        self.rows, self.length, wide = projected.shape
        self.count, self.shared, self.width = wide // width - 2 * shared, shared, width
        self.eps, self.theta = eps, theta
        self.total = self.rows * self.length * (self.count + shared)
        self.at_a_time = max(1, TILE // width)
        self.programs = -(-self.total // self.at_a_time)

    def apart(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, L, heads, D] as they lie in a projection."""
        q, k, v = projected.unflatten(-1, (-1, self.width)).split([self.count, self.shared, self.shared], dim=2)
        return q, k, v

    def forth(self) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, and values as they lie."""
        turned = self.projected.new_empty(self.rows, self.length, self.count + self.shared, self.width)
        self._launch(forward_kernel, turned)
        return turned[:, :, : self.count], turned[:, :, self.count :], self.apart(self.projected)[2]

    def back(self, grads: Tensor) -> Tensor:
        """Turn gradients of heads, in the place of each, into the projection's, and return those of both gains."""
        # Each program's part: one after the other, so that their sum has one order.
        parts = grads.new_empty(self.programs, 2, self.width, dtype=torch.float32)
        self._launch(backward_kernel, grads, parts)
        return parts[0] if self.gains[0] is None else parts.sum(dim=0)

    def _launch(self, kernel: Any, *others: Tensor) -> None:
        device = self.projected.device
        table = None if self.theta is None else turns(self.theta, self.width // 2, self.length, device)
        with torch.cuda.device_of(self.projected):
            kernel[(self.programs,)](
                self.projected,
                *self.gains,
                table,
                *others,
                self.eps,
                self.total,
                self.length,
                H=self.count,
                G=self.shared,
                D=self.width,
                R=self.at_a_time,
                NORM=self.gains[0] is not None,
                TURN=self.theta is not None,
                num_warps=4,
            )


@forward.register_fake
def _(projected: Tensor, *settings: Any) -> tuple[Tensor, Tensor]:
    shared, width = settings[3:5]
    rows, length, wide = projected.shape
    count = wide // width - 2 * shared
    sums = projected.new_empty(rows, count, length, dtype=torch.float32)
    return projected.new_empty(rows, length, count * width), sums


@backward.register_fake
def _(projected: Tensor, *settings: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(projected), projected.new_empty(2, settings[4], dtype=torch.float32)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:4], *output)
    ctx.settings = inputs[4:]


def _differentiate(ctx: Any, grad_outputs: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, outputs, sums = ctx.saved_tensors
    grad, gains = backward(*tensors, *ctx.settings, outputs, sums, grad_outputs)
    of_gains = (None, None) if tensors[1] is None else (gains[0], gains[1])
    return grad, *of_gains, *(None,) * 6


forward.register_autograd(_differentiate, setup_context=_keep)
