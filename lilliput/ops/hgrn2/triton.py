"""HGRN2's recurrence from the projection on as Triton kernels, for CUDA and ROCm devices.

For the backward pass the projection is kept, the scores inside of chunks, and the states that chunks receive. What the
scan reads is made from the projection again. At OdinNext's shape that takes 0.18 ms a layer and spares 0.3 GiB; to make
the states again would take 0.19 ms and spare 0.2. With 16-bit projections the decays are handed on in fp16 as powers of
two, which is what the scan rounds them to anyway. The projection's gradient is written as one tensor; values are read,
and their gradients written, where they lie in it.
"""

from typing import Any

import torch
from torch import Tensor
from triton import knobs

from lilliput.ops.compiler import operator
from lilliput.ops.gla import RESET
from lilliput.ops.gla import triton as scan
from lilliput.ops.hgrn2.triton_activations import gates_kernel, gradients_kernel
from lilliput.ops.rope import cos_sin_table

TILE = 2048
"""Numbers of a head that a program holds at a time."""


def is_supported(projected: Tensor, heads: int) -> bool:
    """Return whether these kernels take such a projection."""
    return projected.shape[-1] // (3 * heads) in scan.WIDTHS and projected.dtype in scan.DTYPES


def hgrn2_triton(
    projected: Tensor, heads: int, bias: Tensor | None, theta: float | None, document_ids: Tensor | None
) -> Tensor:
    """See `lilliput.ops.hgrn2.recurrence`."""
    assert is_supported(projected, heads) and (projected.is_cuda or knobs.runtime.interpret)
    return hgrn2_forward(projected, None if bias is None else bias.float(), document_ids, heads, theta)[0]


@operator("lilliput::recurrence")
def hgrn2_forward(
    projected: Tensor, bias: Tensor | None, document_ids: Tensor | None, heads: int, theta: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs [B, L, H K], the scores inside of chunks [B, H, N, C, C], and the states they receive [B, H, N, K, K]."""
    gates = _Gates(projected.contiguous(), bias, document_ids, heads, theta)
    q, k, v, decays = gates.forth()
    outputs, scores, _ = _empty(projected, heads)
    shaped = outputs.view(q.shape)
    with torch.cuda.device_of(q):
        launch = scan.Launches(q, v)
        entering = launch.states(k, v, decays, None, None, reverse=False)
        launch.outputs(q, k, v, decays, entering, scores, shaped, reverse=False)
    return outputs, scores, entering


@operator("lilliput::recurrence_gradients")
def hgrn2_backward(
    projected: Tensor,
    bias: Tensor | None,
    document_ids: Tensor | None,
    heads: int,
    theta: float | None,
    scores: Tensor,
    entering: Tensor,
    grad_outputs: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of the projection, and of the bias [H K]."""
    gates = _Gates(projected.contiguous(), bias, document_ids, heads, theta)
    q, k, v, decays = gates.forth()
    grad_outputs = grad_outputs.contiguous().view(q.shape)
    grad = torch.empty_like(projected, memory_format=torch.contiguous_format)
    grad_q, grad_k, grad_decays = (torch.empty_like(q) for _ in range(3))
    with torch.cuda.device_of(q):
        launch = scan.Launches(q, v)
        leaving = launch.states(q, grad_outputs, decays, None, None, reverse=True)
        launch.outputs(q, k, grad_outputs, decays, leaving, scores, gates.values_of(grad), reverse=True)
        launch.gradients(q, k, v, decays, entering, leaving, grad_outputs, grad_q, grad_k, grad_decays)
    gates.back(grad_q, grad_k, grad_decays, grad)
    if bias is None:
        return grad, grad.new_empty(0, dtype=torch.float32)
    return grad, grad.chunk(3, dim=-1)[1].sum(dim=(0, 1), dtype=torch.float32)


class _Gates:
    """Both ways between a projection and what the scan reads."""

    def __init__(
        self, projected: Tensor, bias: Tensor | None, document_ids: Tensor | None, heads: int, theta: float | None
    ):
        self.projected, self.bias, self.theta = projected, bias, theta
        self.document_ids = None if document_ids is None else document_ids.contiguous()
        self.rows, self.length, wide = projected.shape
        self.heads, self.width = heads, wide // (3 * heads)

    def forth(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q, k, v, where it lies, and decays."""
        q, k = (self.projected.new_empty(self.rows, self.length, self.heads, self.width) for _ in range(2))
        exact = self.projected.dtype == torch.float32
        decays = torch.empty_like(q, dtype=torch.float32 if exact else torch.float16)
        self._launch(gates_kernel, q, k, decays, RESET=RESET)
        return q, k, self.values_of(self.projected), decays

    def values_of(self, projected: Tensor) -> Tensor:
        return projected.chunk(3, dim=-1)[2].unflatten(-1, (self.heads, self.width))

    def back(self, grad_q: Tensor, grad_k: Tensor, grad_decays: Tensor, grad: Tensor) -> None:
        """Into `grad`, the parts of queries and forget gates."""
        self._launch(gradients_kernel, grad_q, grad_k, grad_decays, grad)

    def _launch(self, kernel: Any, *others: Tensor, **constants: float) -> None:
        device = self.projected.device
        table = None if self.theta is None else cos_sin_table(self.theta, self.width // 2, self.length, device)
        positions = max(1, TILE // self.width)
        with torch.cuda.device_of(self.projected):
            kernel[-(-self.rows * self.length // positions), self.heads](
                self.projected,
                self.bias,
                self.document_ids,
                table,
                *others,
                self.rows * self.length,
                self.length,
                H=self.heads,
                K=self.width,
                P=positions,
                TURN=self.theta is not None,
                num_warps=4,
                **constants,
            )


def _empty(projected: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    rows, length, wide = projected.shape
    chunk, width = scan.tiles_for(projected.dtype, projected.device).chunk, wide // (3 * heads)
    scores, entering = (projected.new_empty(rows, heads, -(-length // chunk), n, n) for n in (chunk, width))
    return projected.new_empty(rows, length, wide // 3), scores, entering


@hgrn2_forward.register_fake
def _(projected: Tensor, bias: Any, document_ids: Any, heads: int, theta: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _empty(projected, heads)


@hgrn2_backward.register_fake
def _(projected: Tensor, bias: Tensor | None, *_: Any) -> tuple[Tensor, Tensor]:
    wide = 0 if bias is None else len(bias)
    return projected.new_empty(projected.shape), projected.new_empty(wide, dtype=torch.float32)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.heads, ctx.theta = inputs
    ctx.save_for_backward(*tensors, *output[1:])


def _differentiate(ctx: Any, grad_outputs: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    projected, bias, document_ids, scores, entering = ctx.saved_tensors
    grad, grad_bias = hgrn2_backward(
        projected, bias, document_ids, ctx.heads, ctx.theta, scores, entering, grad_outputs
    )
    return grad, None if bias is None else grad_bias, None, None, None


hgrn2_forward.register_autograd(_differentiate, setup_context=_keep)
