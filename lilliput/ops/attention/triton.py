"""Attention from the projection on as Triton kernels, for CUDA and ROCm devices.

Queries and keys are normed and turned where they lie in the projection, and what becomes of it is kept for the backward
pass, with the outputs, a log-sum-exp a query and head, and 1 / rms a head. Turns can be undone, so that nothing is made
again; and the projection's gradient is made in its place of those of queries, keys and values.

Shapes: B rows, L positions, H query heads, G key heads, D head width.
"""

from typing import Any

import torch
from torch import Tensor
from triton import knobs

from lilliput.ops.attend import triton as kernels
from lilliput.ops.attention.triton_heads import backward_kernel, forward_kernel
from lilliput.ops.rotate import turns

TILE = 2048
"""Numbers of heads that a program holds at a time."""
TIMES = 8
"""So many times it does, where gains have a gradient; sums over heads, each time anew, took half of 0.18 ms."""


def fits(projected: Tensor, width: int) -> bool:
    """Whether these kernels take such a projection."""
    return width in kernels.WIDTHS and projected.dtype in kernels.DTYPES


@torch.compiler.allow_in_graph
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
    """See `lilliput.ops.attention.attention`; it writes into the projection."""
    query_gain, key_gain = (None, None) if gains is None else (gain.float() for gain in gains)
    return _Attention.apply(projected, query_gain, key_gain, segments, shared, width, eps, theta, cap)  # type: ignore[no-any-return]


class _Attention(torch.autograd.Function):
    """The projection goes in, and is what queries, keys and values are read from after."""

    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        query_gain: Tensor | None,
        key_gain: Tensor | None,
        segments: Tensor | None,
        shared: int,
        width: int,
        eps: float,
        theta: float | None,
        cap: float | None,
    ) -> Tensor:
        scales = turn(projected, query_gain, key_gain, shared, width, eps, theta)
        outputs, sums = attend(projected, segments, shared, width, cap)
        ctx.save_for_backward(projected, query_gain, key_gain, scales, segments, outputs, sums)
        ctx.settings = shared, width, theta, cap
        return outputs

    @staticmethod
    def backward(ctx: Any, grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        grad, gains = differentiate(*ctx.saved_tensors, grad_outputs, *ctx.settings)
        of_gains = (None, None) if ctx.saved_tensors[1] is None else gains.unbind()
        return grad, *of_gains, *(None,) * 6


@torch.library.custom_op("lilliput::turn", mutates_args=("projected",))
def turn(
    projected: Tensor,
    query_gain: Tensor | None,
    key_gain: Tensor | None,
    shared: int,
    width: int,
    eps: float,
    theta: float | None,
) -> Tensor:
    """Norm and turn the queries and keys of a projection [B, L, (H + 2 G) D]; 1 / rms of each, [B, L, H + G]."""
    scales = _scales(projected, query_gain, shared, width)
    launches = _Heads(projected, query_gain, key_gain, shared, width, theta)
    launches.launch(forward_kernel, launches.programs(launches.heads + shared), scales, eps)
    return scales


@torch.library.custom_op("lilliput::attention", mutates_args=())
def attend(
    turned: Tensor, segments: Tensor | None, shared: int, width: int, cap: float | None
) -> tuple[Tensor, Tensor]:
    """Outputs [B, L, H D] and log-sum-exps [B, H, L], of what is turned [B, L, (H + 2 G) D]."""
    outputs, sums = kernels.outputs_of(*_apart(turned, shared, width), kernels.spans(segments), cap)
    return outputs.flatten(-2), sums


@torch.library.custom_op("lilliput::attention_gradients", mutates_args=())
def differentiate(
    turned: Tensor,
    query_gain: Tensor | None,
    key_gain: Tensor | None,
    scales: Tensor,
    segments: Tensor | None,
    outputs: Tensor,
    sums: Tensor,
    grad_outputs: Tensor,
    shared: int,
    width: int,
    theta: float | None,
    cap: float | None,
) -> tuple[Tensor, Tensor]:
    """Gradients of the projection, and of both gains [2, D]."""
    outputs, grad_outputs = (x.unflatten(-1, (-1, width)) for x in (outputs, grad_outputs.contiguous()))
    grad, documents = torch.empty_like(turned), kernels.spans(segments)
    heads, into = _apart(turned, shared, width), _apart(grad, shared, width)
    kernels.gradients_of(*heads, documents, cap, outputs, sums, grad_outputs, into=into)
    launches = _Heads(turned, query_gain, key_gain, shared, width, theta)
    times = 1 if query_gain is None else TIMES
    programs = [launches.programs(heads, times) for heads in (launches.heads, shared)]
    # Each program's part of a gain's: one after the other, so that their sum has one order.
    parts = turned.new_empty(0 if query_gain is None else sum(programs), width, dtype=torch.float32)
    launches.launch(backward_kernel, sum(programs), scales, grad, parts, TIMES=times)
    if query_gain is None:
        return grad, parts.new_empty(2, width)
    return grad, torch.stack([part.sum(dim=0) for part in parts.split(programs)])


def _apart(projected: Tensor, shared: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [B, L, heads, D] as they lie in a projection."""
    whole = projected.unflatten(-1, (-1, width))
    q, k, v = whole.split([whole.shape[2] - 2 * shared, shared, shared], dim=2)
    return q, k, v


class _Heads:
    """Launches between a projection and its heads."""

    def __init__(
        self,
        projected: Tensor,
        query_gain: Tensor | None,
        key_gain: Tensor | None,
        shared: int,
        width: int,
        theta: float | None,
    ):
        assert fits(projected, width) and (projected.is_cuda or knobs.runtime.interpret)
        assert projected.is_contiguous(), "a copy would be turned instead"
        self.projected, self.gains, self.width, self.theta = projected, (query_gain, key_gain), width, theta
        rows, self.length, wide = projected.shape
        self.heads, self.shared, self.positions = wide // width - 2 * shared, shared, rows * self.length
        self.at_a_time = TILE // width

    def programs(self, heads: int, times: int = 1) -> int:
        """For so many heads of each position."""
        return -(-self.positions * heads // (self.at_a_time * times))

    def launch(self, kernel: Any, programs: int, *others: Tensor | float, **constants: int) -> None:
        device = self.projected.device
        table = None if self.theta is None else turns(self.theta, self.width // 2, self.length, device)
        with torch.cuda.device_of(self.projected):
            kernel[(programs,)](
                self.projected,
                *self.gains,
                table,
                *others,
                self.positions,
                self.length,
                H=self.heads,
                G=self.shared,
                D=self.width,
                R=self.at_a_time,
                NORM=self.gains[0] is not None,
                TURN=self.theta is not None,
                num_warps=4,
                **constants,
            )


def _scales(projected: Tensor, gain: Tensor | None, shared: int, width: int) -> Tensor:
    """In 16 bits as fp16, whose rounding of a whole head is a quarter of what bf16 does to each of its numbers."""
    rows, length, wide = projected.shape
    normed = 0 if gain is None else wide // width - shared
    exact = projected.dtype == torch.float32
    return projected.new_empty(rows, length, normed, dtype=torch.float32 if exact else torch.float16)


@turn.register_fake
def _(projected: Tensor, query_gain: Tensor | None, key_gain: Any, shared: int, width: int, *_: Any) -> Tensor:
    return _scales(projected, query_gain, shared, width)


@attend.register_fake
def _(turned: Tensor, segments: Tensor | None, shared: int, width: int, cap: float | None) -> tuple[Tensor, Tensor]:
    rows, length, wide = turned.shape
    heads = wide // width - 2 * shared
    return turned.new_empty(rows, length, heads * width), turned.new_empty(rows, heads, length, dtype=torch.float32)


@differentiate.register_fake
def _(turned: Tensor, *settings: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(turned), turned.new_empty(2, settings[8], dtype=torch.float32)
