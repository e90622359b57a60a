"""Attention from the projection on as Triton kernels, for CUDA and ROCm devices.

The projection is kept for the backward pass, with the outputs and a log-sum-exp a query and head. Queries and keys are
turned where they lie in it: only gradients have to be turned back. Each pass makes normed ones again, since a turn
adds channels whose gains may differ in size, and what they were could not be found again. At SLM-10M's shape that takes
0.06 ms a layer and spares 80 MiB. The projection's gradient is made in the place of those of queries, keys and values.

Shapes: B rows, L positions, H query heads, G key heads, D head width.
"""

from typing import Any

import torch
from torch import Tensor
from triton import knobs

from lilliput.ops.attention.triton_heads import backward_kernel, forward_kernel
from lilliput.ops.compiler import called_as_it_is, operator
from lilliput.ops.rope import cos_sin_table
from lilliput.ops.sdpa import triton as kernels

TILE = 2048
"""Numbers of heads that a program holds at a time."""
TIMES = 8
"""So many times it does, where gains have a gradient: with sums over heads each time again the kernel took 0.18 ms at
SLM-10M's shape, 0.13 with twice as many heads a sum."""


def is_supported(projected: Tensor, width: int) -> bool:
    """Return whether these kernels take such a projection."""
    return width in kernels.WIDTHS and projected.dtype in kernels.DTYPES


@called_as_it_is
def attention_triton(
    projected: Tensor,
    shared: int,
    width: int,
    gains: tuple[Tensor, Tensor] | None,
    eps: float,
    theta: float | None,
    document_ids: Tensor | None,
    softcap: float | None,
) -> Tensor:
    """See `lilliput.ops.attention.attention`; it may write into the projection."""
    query_gain, key_gain = (None, None) if gains is None else (gain.float() for gain in gains)
    settings = shared, width, eps, theta, softcap
    return _Attention.apply(projected, query_gain, key_gain, document_ids, *settings)  # type: ignore[no-any-return]


class _Attention(torch.autograd.Function):
    """Without gains the projection is turned itself, and read as it is after."""

    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        query_gain: Tensor | None,
        key_gain: Tensor | None,
        document_ids: Tensor | None,
        *settings: Any,
    ) -> Tensor:
        shared, width, _, theta, _ = settings
        if query_gain is None and theta is not None:
            rotate_in_place(projected, shared, width, theta)
        outputs, sums = attention_forward(projected, query_gain, key_gain, document_ids, *settings)
        ctx.save_for_backward(projected, query_gain, key_gain, document_ids, outputs, sums)
        ctx.settings = settings
        return outputs

    @staticmethod
    def backward(ctx: Any, grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        *tensors, outputs, sums = ctx.saved_tensors
        grad, gains = attention_backward(*tensors, *ctx.settings, outputs, sums, grad_outputs)
        of_gains = (None, None) if tensors[1] is None else gains.unbind()
        return grad, *of_gains, None, *(None for _ in ctx.settings)


@operator("lilliput::turn", mutates_args=("projected",))
def rotate_in_place(projected: Tensor, shared: int, width: int, theta: float) -> None:
    """Turn the queries and keys of a projection [B, L, (H + 2 G) D]."""
    assert projected.is_contiguous(), "a copy would be turned instead"
    _Heads(projected, None, None, shared, width, 0.0, theta).turn_into(projected)


@operator("lilliput::attention")
def attention_forward(
    projected: Tensor,
    query_gain: Tensor | None,
    key_gain: Tensor | None,
    document_ids: Tensor | None,
    shared: int,
    width: int,
    eps: float,
    theta: float | None,
    cap: float | None,
) -> tuple[Tensor, Tensor]:
    """Outputs [B, L, H D] and log-sum-exps [B, H, L]; without gains, of a projection that is turned already."""
    heads = _Heads(projected.contiguous(), query_gain, key_gain, shared, width, eps, theta).to_attend()
    outputs, sums = kernels.outputs_of(*heads, kernels.document_bounds(document_ids), cap)
    return outputs.flatten(-2), sums


@operator("lilliput::attention_gradients")
def attention_backward(
    projected: Tensor,
    query_gain: Tensor | None,
    key_gain: Tensor | None,
    document_ids: Tensor | None,
    shared: int,
    width: int,
    eps: float,
    theta: float | None,
    cap: float | None,
    outputs: Tensor,
    sums: Tensor,
    grad_outputs: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of the projection before it was turned, and of both gains [2, D]."""
    ways = _Heads(projected.contiguous(), query_gain, key_gain, shared, width, eps, theta)
    outputs, grad_outputs = (x.unflatten(-1, (-1, width)) for x in (outputs, grad_outputs.contiguous()))
    grad = torch.empty_like(ways.projected)
    documents, into = kernels.document_bounds(document_ids), ways.apart(grad)
    kernels.gradients_of(*ways.to_attend(), documents, cap, outputs, sums, grad_outputs, into=into)
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
        assert is_supported(projected, width) and (projected.is_cuda or knobs.runtime.interpret)
        self.projected, self.gains, self.normed = projected, (query_gain, key_gain), query_gain is not None
        self.rows, self.length, wide = projected.shape
        self.heads, self.shared, self.width = wide // width - 2 * shared, shared, width
        self.eps, self.theta, self.at_a_time = eps, theta, TILE // width

    def apart(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, L, heads, D] as they lie in a projection."""
        whole = projected.unflatten(-1, (-1, self.width))
        q, k, v = whole.split([self.heads, self.shared, self.shared], dim=2)
        return q, k, v

    def to_attend(self) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values that attention reads."""
        q, k, v = self.apart(self.projected)
        if self.normed:
            made = self.projected.new_empty(self.rows, self.length, self.heads + self.shared, self.width)
            self.turn_into(made.flatten(-2))
            q, k = made.split([self.heads, self.shared], dim=2)
        return q, k, v

    def turn_into(self, turned: Tensor) -> None:
        """Norm and turn queries and keys, to where the first heads of `turned` lie."""
        heads = turned.shape[-1] // self.width
        self._launch(forward_kernel, self._programs(self.heads + self.shared), turned, TURNED=heads)

    def back(self, grads: Tensor) -> Tensor:
        """Turn gradients of heads, in the place of each, into the projection's, and return those of both gains."""
        times = TIMES if self.normed else 1
        programs = [self._programs(heads, times) for heads in (self.heads, self.shared)]
        # Each program's part of a gain's: one after the other, so that their sum has one order.
        parts = grads.new_empty(sum(programs) if self.normed else 0, self.width, dtype=torch.float32)
        if self.normed or self.theta is not None:
            self._launch(backward_kernel, sum(programs), grads, parts, TIMES=times)
        if not self.normed:
            return parts.new_empty(2, self.width)
        return torch.stack([part.sum(dim=0) for part in parts.split(programs)])

    def _programs(self, heads: int, times: int = 1) -> int:
        """Return the launch grid for a number of heads per position."""
        return -(-self.rows * self.length * heads // (self.at_a_time * times))

    def _launch(self, kernel: Any, programs: int, *others: Tensor, **constants: int) -> None:
        device = self.projected.device
        table = None if self.theta is None else cos_sin_table(self.theta, self.width // 2, self.length, device)
        with torch.cuda.device_of(self.projected):
            kernel[(programs,)](
                self.projected,
                *self.gains,
                table,
                *others,
                self.eps,
                self.rows * self.length,
                self.length,
                H=self.heads,
                G=self.shared,
                D=self.width,
                R=self.at_a_time,
                NORM=self.normed,
                TURN=self.theta is not None,
                num_warps=4,
                **constants,
            )


@attention_forward.register_fake
def _(projected: Tensor, query_gain: Any, key_gain: Any, document_ids: Any, shared: int, width: int, *_: Any) -> Any:
    rows, length, wide = projected.shape
    heads = wide // width - 2 * shared
    sums = projected.new_empty(rows, heads, length, dtype=torch.float32)
    return projected.new_empty(rows, length, heads * width), sums


@attention_backward.register_fake
def _(projected: Tensor, *settings: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(projected), projected.new_empty(2, settings[4], dtype=torch.float32)
