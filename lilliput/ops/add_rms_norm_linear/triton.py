"""Launches the kernels of `triton_kernels` for the fused start of a branch in a narrow stream.

`fused` goes into the compiler's graph whole, as that of `lilliput.ops.swiglu.triton` does. The gradient of the
stream goes through it, too, so that it is added where the norm's is made.

Shapes: D channels of the stream, I of the branch that joins it, E of the one that begins.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from lilliput.ops.add_rms_norm_linear.triton_kernels import begin_gradients_kernel, join_kernel
from lilliput.ops.compiler import called_as_it_is, operator
from lilliput.ops.rms_norm import rms_normalize_with_scale
from lilliput.ops.small_width import DTYPE, INTERPRETED, supports_small_width

JOIN = (64, 64, 4, 2)
"""Positions of a tile, channels multiplied at a time, warps, and how many times it loads ahead. One H100, 2026-11-26,
131,072 positions of a stream of 256, 256 channels that join it: 0.105 ms; a product, a sum and a norm take 0.146, other
cuts 0.105 to 0.133."""
GRADIENTS = (64, 64, 8, 4)
"""The same. From 384 channels 0.123 ms, from 1,280 channels 0.229; a product and what the compiler makes behind it take
0.153 and 0.240, other cuts 0.122 to 0.164 and 0.231 to 0.36."""
ALIGNED = 16
"""Bytes that rows of a tensor behind a descriptor begin at multiples of."""


def is_supported(stream: Tensor, projected: int, inner: Tensor | None = None) -> bool:
    """Return whether a branch of `projected` channels is to begin here."""
    rows = (projected, *(() if inner is None else inner.shape[-1:]))
    return supports_small_width(stream, stream.shape[-1]) and all(
        channels * DTYPE.itemsize % ALIGNED == 0 for channels in rows
    )


@called_as_it_is
def add_rms_norm_linear_triton(
    stream: Tensor, first: Tensor, eps: float, inner: Tensor | None = None, last: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """[..., D], [E, D], and [..., I] and [D, I] or None -> [..., D], [..., E]; see `add_rms_norm_linear.begin`."""
    # Cast where autograd sees it: weights' gradients are rounded as those of any other product.
    last = None if last is None else last.to(stream.dtype)
    return _Begin.apply(stream, first.to(stream.dtype), eps, inner, last)  # type: ignore[no-any-return]


class _Begin(torch.autograd.Function):
    """From the end of a branch through the first product of the next; all of one dtype."""

    @staticmethod
    def forward(
        ctx: Any, stream: Tensor, first: Tensor, eps: float, inner: Tensor | None, last: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if inner is None or last is None:
            x, (normed, scale) = stream.view_as(stream), rms_normalize_with_scale(stream, eps, stream.dtype)
        else:
            x, normed, scale = join(stream, inner, last, eps)
        ctx.save_for_backward(first, normed, scale, inner, last)
        return x, F.linear(normed, first)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad: Tensor, grad_projected: Tensor
    ) -> tuple[Tensor, Tensor, None, Tensor | None, Tensor | None]:
        first, normed, scale, inner, last = ctx.saved_tensors
        grad_first = grad_projected.flatten(0, -2).T @ normed.flatten(0, -2)
        grad = differentiate(grad_projected, first, normed, scale, grad)
        if inner is None:
            return grad, grad_first, None, None, None
        return grad, grad_first, None, grad @ last, grad.flatten(0, -2).T @ inner.flatten(0, -2)


@operator("lilliput::join")
def join(onto: Tensor, inner: Tensor, last: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The stream and its norm, [..., D], and the scales [..., 1]. The operator itself has no gradient."""
    (width, channels), (stream, normed, scales) = last.shape, _outputs(onto)
    total, (positions, at_a_time, warps, stages) = scales.numel(), JOIN
    launch: Any = join_kernel[(-(-total // positions),)]
    with torch.cuda.device_of(onto):
        launch(
            _tiles(inner, positions, at_a_time),
            _tiles(last, width, at_a_time),
            *(_tiles(rows, positions, width) for rows in (onto, stream, normed)),
            scales,
            total,
            eps,
            INNER=channels,
            D=width,
            M=positions,
            K=at_a_time,
            STAGES=stages,
            num_warps=warps,
        )
    return stream, normed, scales


@operator("lilliput::begin_gradients")
def differentiate(grad_projected: Tensor, first: Tensor, normed: Tensor, scales: Tensor, onto: Tensor) -> Tensor:
    """onto [..., D], plus the gradient through norm and product of what was normed. It has no gradient itself."""
    (channels, width), grads = first.shape, normed.new_empty(normed.shape)
    total, (positions, at_a_time, warps, stages) = scales.numel(), GRADIENTS
    launch: Any = begin_gradients_kernel[(min(-(-total // positions), _programs(normed.device)),)]
    with torch.cuda.device_of(normed):
        launch(
            _tiles(grad_projected, positions, at_a_time),
            _tiles(first, at_a_time, width),
            *(_tiles(rows, positions, width) for rows in (normed, onto, grads)),
            scales,
            total,
            E=channels,
            D=width,
            M=positions,
            K=at_a_time,
            STAGES=stages,
            num_warps=warps,
        )
    return grads


def _tiles(tensor: Tensor, *shape: int) -> TensorDescriptor:
    """Tiles of a tensor [..., channels], for a kernel to read or write."""
    assert tensor.is_cuda or INTERPRETED
    return TensorDescriptor.from_tensor(tensor.contiguous().flatten(0, -2), list(shape))


def _outputs(onto: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    stream = onto.new_empty(onto.shape)
    return stream, torch.empty_like(stream), onto.new_empty((*onto.shape[:-1], 1), dtype=torch.float32)


def _programs(device: torch.device) -> int:
    """Return how many run at a time: one on each multiprocessor; the interpreter's only have to be fewer than tiles."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


@join.register_fake
def _(onto: Tensor, inner: Tensor, last: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(onto)


@differentiate.register_fake
def _(grad_projected: Tensor, first: Tensor, normed: Tensor, scales: Tensor, onto: Tensor) -> Tensor:
    return normed.new_empty(normed.shape)
