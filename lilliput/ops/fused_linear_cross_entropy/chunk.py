"""The loss a chunk of positions at a time, in plain PyTorch, on any device.

Shapes: P positions, S tokens in a bag, D width, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lilliput.ops.fused_linear_cross_entropy.compact_targets import CompactTargets
from lilliput.ops.fused_linear_cross_entropy.reference import fused_linear_cross_entropy_reference
from lilliput.ops.softcap import to_fp32

CHUNK = 1024
"""Positions whose logits exist at a time. On two cores at a vocabulary of 4,096 twice as many took 1.8 times as long:
their buffers no longer come from the heap."""


def fused_linear_cross_entropy_chunk(
    hidden: Tensor, head: Tensor, targets: Tensor, weight: Tensor, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """See `fused_linear_cross_entropy`; [P, D], [V, D], [P, S] and [P, S] -> loss [P, S] and logsumexp [P]."""
    return _Chunked.apply(hidden, head, targets, weight, softcap)  # type: ignore[return-value]


class _Chunked(torch.autograd.Function):
    """Logits are made again in the backward pass: one more product instead of a [positions, V] tensor kept.

    `triton` spares that product; on a processor that would save too little to change every weight (docs/log.md).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, weight: Tensor, cap: float | None
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(hidden, head, targets, weight)
        ctx.compact, ctx.cap = CompactTargets(weight), cap
        cast = head.to(hidden.dtype)
        parts = (ctx.compact.take(tensor).split(CHUNK) for tensor in (hidden, targets, weight))
        results = [
            fused_linear_cross_entropy_reference(hidden, cast, targets, weight, cap)
            for hidden, targets, weight in zip(*parts, strict=True)
        ]
        loss, lse = (torch.cat(values) for values in zip(*results, strict=True))
        return ctx.compact.put(loss, len(weight)), ctx.compact.put(lse, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        hidden, head, targets, weight = ctx.saved_tensors
        grad_targets = grad_loss * weight  # [P, S]
        grad_sum = grad_targets.sum(dim=-1, keepdim=True) + grad_lse[:, None]
        cast = head.to(hidden.dtype)
        grad_head = torch.zeros_like(head)
        grads = []
        parts = (ctx.compact.take(tensor).split(CHUNK) for tensor in (hidden, targets, grad_targets, grad_sum))
        for part, ids, grad_ids, grad_sums in zip(*parts, strict=True):
            grad_logits = _grad_logits(part @ cast.T, ids, grad_ids, grad_sums, ctx.cap)
            grads.append(grad_logits @ cast)
            grad_head += (grad_logits.T @ part).to(head.dtype)
        return ctx.compact.put(torch.cat(grads), len(hidden)), grad_head, None, None, None


def _grad_logits(logits: Tensor, targets: Tensor, grad_targets: Tensor, grad_sum: Tensor, cap: float | None) -> Tensor:
    """Gradients of logits before the cap [P, V], in their dtype, from those of the target logits and of the sum."""
    # The softmax sums in fp32 whatever it stores: in bf16 it took a quarter of the time of fp32 logits. In fp16
    # it would lose what is below 6e-8 before the scale of the loss lifts it.
    if cap is None:
        stored = torch.float32 if logits.dtype == torch.float16 else logits.dtype
        grad = torch.softmax(logits, dim=-1, dtype=stored).mul_(grad_sum)
        return grad.scatter_add_(-1, targets, -grad_targets.to(grad.dtype)).to(logits.dtype)
    bent = torch.tanh(to_fp32(logits) / cap)
    grad = torch.softmax(cap * bent, dim=-1)
    grad.mul_(grad_sum).scatter_add_(-1, targets, -grad_targets.to(grad.dtype))
    return (grad * (1 - bent.square())).to(logits.dtype)
