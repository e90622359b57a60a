"""Attention as Triton kernels (`triton_forward`, `triton_backward`), for CUDA and ROCm devices.

Nothing is kept for the backward pass but inputs, outputs and one log-sum-exp a query and head. What other documents
hold is skipped a block at a time, keys are read where they lie, never copied for the heads that share them, and no sum
depends on which program was first. Both passes are operators of PyTorch, which `torch.compile` takes as they are.
"""

from typing import Any

import torch
from torch import Tensor
from triton import knobs

from lilliput.base.errors import MachineError
from lilliput.ops.compiler import operator
from lilliput.ops.sdpa.triton_backward import dkdv_kernel, dq_kernel
from lilliput.ops.sdpa.triton_forward import outputs_kernel, spans_kernel
from lilliput.ops.sdpa.triton_tiles import Tile, tiles_for

WIDTHS = (16, 32, 64, 128) if knobs.runtime.interpret else (32, 64, 128)
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def is_supported(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Return whether these kernels take such inputs: rows without a cache, of known widths and precisions."""
    same = q.dtype == k.dtype == v.dtype and k.shape == v.shape
    return same and q.shape[1] == k.shape[1] and q.shape[-1] in WIDTHS and q.dtype in DTYPES


def sdpa_triton(q: Tensor, k: Tensor, v: Tensor, document_ids: Tensor | None, cap: float | None) -> Tensor:
    """See `lilliput.ops.sdpa.attend`."""
    if not is_supported(q, k, v):
        raise MachineError(
            f"{q.shape[1]} queries and {k.shape[1]} keys in heads of {q.shape[-1]} channels, {q.dtype}, do not fit the "
            "Triton kernels of attention",
            where="attend(backend=Backend.TRITON)",
            hint=f"take whole rows, widths of {WIDTHS} in bf16, fp16 or fp32, or leave the choice to Backend.AUTO",
        )
    if not (q.is_cuda or knobs.runtime.interpret):
        raise MachineError(
            f"the Triton kernels of attention cannot run on the device {q.device}",
            where="attend(backend=Backend.TRITON)",
            hint="use a CUDA or ROCm device, or leave the choice to Backend.AUTO",
        )
    return sdpa_forward(q, k, v, document_ids, cap)[0]


DocumentBounds = tuple[Tensor | None, Tensor | None]


def document_bounds(document_ids: Tensor | None) -> DocumentBounds:
    """Document numbers [B, L] -> first and last position of each position's document, int32 [B, L]; None for None."""
    if document_ids is None:
        return None, None
    document_ids = document_ids.contiguous()
    begins, ends = (torch.empty(document_ids.shape, dtype=torch.int32, device=document_ids.device) for _ in range(2))
    rows, length = document_ids.shape
    kernel: Any = spans_kernel
    with torch.cuda.device_of(document_ids):
        kernel[(rows,)](document_ids, begins, ends, length, TILE=min(2048, 1 << (length - 1).bit_length()))
    return begins, ends


@operator("lilliput::attend")
def sdpa_forward(
    q: Tensor, k: Tensor, v: Tensor, document_ids: Tensor | None, cap: float | None
) -> tuple[Tensor, Tensor]:
    """Outputs [B, L, H, D], and log-sum-exps of the scores [B, H, L] in units of log 2."""
    return outputs_of(q, k, v, document_bounds(document_ids), cap)


def outputs_of(q: Tensor, k: Tensor, v: Tensor, documents: DocumentBounds, cap: float | None) -> tuple[Tensor, Tensor]:
    """The same, given what documents span."""
    q, k, v = (_in_heads(x) for x in (q, k, v))
    begins, _ = documents
    launch = _Launches(q, k, v, begins, cap)
    outputs = q.new_empty(q.shape)
    sums = q.new_empty(q.shape[0], q.shape[2], q.shape[1], dtype=torch.float32)
    with torch.cuda.device_of(q):
        launch(outputs_kernel, launch.tiles.outputs, launch.over_queries, q, k, v, begins, outputs, sums)
    return outputs, sums


@operator("lilliput::attend_gradients")
def sdpa_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    document_ids: Tensor | None,
    cap: float | None,
    outputs: Tensor,
    sums: Tensor,
    grad_outputs: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    grads = q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)
    gradients_of(q, k, v, document_bounds(document_ids), cap, outputs, sums, grad_outputs, into=grads)
    return grads


def gradients_of(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    documents: DocumentBounds,
    cap: float | None,
    outputs: Tensor,
    sums: Tensor,
    grad_outputs: Tensor,
    *,
    into: tuple[Tensor, Tensor, Tensor],
) -> None:
    """The same, given what documents span; those of keys and values lie alike."""
    q, k, v = (_in_heads(x) for x in (q, k, v))
    begins, ends = documents
    launch = _Launches(q, k, v, begins, cap)
    grad_outputs, deltas = grad_outputs.contiguous(), torch.empty_like(sums)
    grad_q, grad_k, grad_v = into
    assert grad_k.stride() == grad_v.stride()
    read, given = (q, k, v, begins), (grad_outputs, sums, deltas)
    with torch.cuda.device_of(q):
        launch(
            dq_kernel,
            launch.tiles.dq,
            launch.over_queries,
            *read,
            outputs,
            *given,
            grad_q,
            grad_q.stride(1),
        )
        launch(
            dkdv_kernel,
            launch.tiles.dkdv,
            launch.over_keys,
            *read,
            ends,
            *given,
            grad_k,
            grad_v,
            grad_k.stride(1),
        )


class _Launches:
    """Settings that all launches for one input share."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, begins: Tensor | None, cap: float | None):
        self.rows, self.length, self.heads, self.width = q.shape
        self.key_heads = k.shape[2]
        self.tiles = tiles_for(q.dtype, self.width)
        self.strides = [stride for x in (q, k, v) for stride in x.stride()[:2]]
        self.cap, self.documents = cap, begins is not None

    def over_queries(self, tile: Tile) -> tuple[int, int]:
        return -(-self.length // tile.queries), self.rows * self.heads

    def over_keys(self, tile: Tile) -> tuple[int, int]:
        return -(-self.length // tile.keys), self.rows * self.key_heads

    def __call__(self, kernel: Any, tile: Tile, programs: Any, *arguments: Tensor | int | None) -> None:
        limits = {} if tile.registers is None else {"maxnreg": tile.registers}
        kernel[programs(tile)](
            *arguments,
            *self.strides,
            self.width**-0.5,
            self.cap,
            self.length,
            self.heads,
            self.heads // self.key_heads,
            D=self.width,
            M=tile.queries,
            N=tile.keys,
            DOCUMENTS=self.documents,
            # Only fp32 operands are concerned: three products of tf32 make one of fp32; ROCm multiplies fp32 as it is.
            PRECISION="ieee" if torch.version.hip else "tf32x3",
            num_warps=tile.warps,
            num_stages=tile.stages,
            **limits,
        )


def _in_heads(x: Tensor) -> Tensor:
    """[B, L, H, D] whose heads lie one after the other, as they do in a slice of a wider projection."""
    return x if x.stride(3) == 1 and x.stride(2) == x.shape[3] else x.contiguous()


@sdpa_forward.register_fake
def _(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[0], q.shape[2], q.shape[1], dtype=torch.float32)


@sdpa_backward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.cap = inputs
    ctx.save_for_backward(*tensors, *output)


def _differentiate(ctx: Any, grad_outputs: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, document_ids, outputs, sums = ctx.saved_tensors
    return *sdpa_backward(q, k, v, document_ids, ctx.cap, outputs, sums, grad_outputs), None, None


sdpa_forward.register_autograd(_differentiate, setup_context=_keep)
