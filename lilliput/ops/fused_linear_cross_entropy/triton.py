"""The loss a chunk of positions at a time: products of the vendor's library, with a Triton kernel between them.

The kernel reads a chunk's logits, leaves two numbers of each position, and the gradients where the logits were; two
products take those to the hidden states and the head. That is 6 D V operations and 10 V bytes of 16-bit logits a
position, and one reading more of what a program does not hold at once. To make the logits a second time in the backward
pass would be 8 D V.

So the gradients are there before anybody asks for them. They are kept instead of the hidden states, and the backward
pass multiplies them with the one number that it brings, which stays on the device. Where they are not needed, a third
of the operations remains, and the kernel writes nothing back.

Shapes: P positions, S tokens in a bag, D width, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lilliput.ops.compiler import operator
from lilliput.ops.fused_linear_cross_entropy.compact_targets import CompactTargets
from lilliput.ops.fused_linear_cross_entropy.reference import LossCoefficients
from lilliput.ops.fused_linear_cross_entropy.triton_kernels import cross_entropy_kernel

BUFFER = 2**28
"""Bytes of the logits that exist at a time."""
LARGEST_TILE = 8192
"""Logits that a program holds at a time."""
PER_WARP = 512
"""Logits of each warp: 16 a thread, which take 40 registers (sm_90, Triton 3.6); with 32 a thread they are 60."""
UNITS = {torch.float16: 2.0**8}
"""Scale of gradients until the backward pass, by precision; 1 in the others.

fp16 loses bits below 6e-5 and ends at 65,504. The gradient of a logit is about its probability: down to 2e-7 it keeps
all bits. The sum of a position's weights, times the largest number of the head, may be 120.
"""


def fused_linear_cross_entropy_triton(
    hidden: Tensor, head: Tensor, targets: Tensor, weight: Tensor, coefficients: LossCoefficients, softcap: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """See `fused_linear_cross_entropy`; [P, D], [V, D], [P, S] and [P, S] -> total, loss [P, S] and logsumexp [P].

    A target of any weight that is no token makes the loss NaN: a device cannot raise.
    """
    wanted = [torch.is_grad_enabled() and tensor.requires_grad for tensor in (hidden, head)]
    return _Total.apply(hidden, head, targets, weight, coefficients, softcap, *wanted)  # type: ignore[return-value]


class _Total(torch.autograd.Function):
    """Differentiated when it is made; the backward pass multiplies."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        weight: Tensor,
        price: LossCoefficients,
        cap: float | None,
        of_hidden: bool,
        of_head: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        loss, lse, *grads = make(hidden, head, targets, weight, price.cross_entropy, price.z, cap, of_hidden, of_head)
        ctx.save_for_backward(*grads)
        ctx.unit, ctx.precisions = _unit(hidden), (hidden.dtype, head.dtype)
        ctx.wanted = of_hidden, of_head
        ctx.mark_non_differentiable(loss, lse)
        ctx.set_materialize_grads(False)
        return price.combine(loss, lse, weight.sum(dim=-1)), loss, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor, *_: None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        # Of one dimension it counts for the precision of the product, which is fp32 and rounded once, in one pass.
        factor = (grad_total / ctx.unit).view(1)
        grads = [
            torch.mul(made, factor, out=torch.empty_like(made, dtype=precision)) if wanted else None
            for made, precision, wanted in zip(ctx.saved_tensors, ctx.precisions, ctx.wanted, strict=True)
        ]
        return *grads, None, None, None, None, None, None


# It reads back how many positions have targets, which a captured graph could not.
@operator("lilliput::fused_linear_cross_entropy", tags=(torch.Tag.cudagraph_unsafe,))
def make(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    weight: Tensor,
    cross_entropy: float,
    z: float,
    cap: float | None,
    of_hidden: bool,
    of_head: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss [P, S], log-sum-exp [P], and gradients of the total in units of `UNITS`: of the hidden states [P, D] in
    their precision, of the head [V, D] in fp32; empty if not wanted. The operator itself has no gradient."""
    compact = CompactTargets(weight)
    chosen, targets, weight = (compact.take(tensor).contiguous() for tensor in (hidden, targets, weight))
    loss, lse, grad_hidden, grad_head = _empty(chosen, head, targets, of_hidden, of_head)
    grad_head.zero_()
    cast = head.to(hidden.dtype)
    launch = _launch(targets.shape[1], len(head), of_hidden or of_head)
    with torch.cuda.device_of(hidden):
        for here, logits in _logits(chosen, cast):
            cross_entropy_kernel[(len(logits),)](
                logits,
                targets[here],
                weight[here],
                loss[here],
                lse[here],
                cap,
                cross_entropy,
                z,
                _unit(hidden),
                logits.stride(0),
                len(head),
                **launch,
            )
            if of_hidden:
                torch.mm(logits, cast, out=grad_hidden[here])
            if of_head:
                _add_product(grad_head, logits.T, chosen[here])
    loss, lse = (compact.put(tensor, len(hidden)) for tensor in (loss, lse))
    return loss, lse, compact.put(grad_hidden, len(hidden)) if of_hidden else grad_hidden, grad_head


@make.register_fake
def _(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    weight: Tensor,
    cross_entropy: float,
    z: float,
    cap: float | None,
    of_hidden: bool,
    of_head: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _empty(hidden, head, targets, of_hidden, of_head)


def _empty(
    hidden: Tensor, head: Tensor, targets: Tensor, of_hidden: bool, of_head: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    loss, lse = (
        torch.empty(shape, dtype=torch.float32, device=hidden.device) for shape in (targets.shape, len(hidden))
    )
    grad_hidden = hidden.new_empty(hidden.shape if of_hidden else 0)
    return loss, lse, grad_hidden, head.new_empty(head.shape if of_head else 0, dtype=torch.float32)


def _logits(hidden: Tensor, head: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The logits of each chunk of positions, in one buffer for all of them; chunks are about equally long."""
    stride = _rounded_up(len(head), 64)  # rows begin at whole cache lines, whatever the vocabulary
    longest = max(1, BUFFER // (stride * hidden.element_size()))
    chunks = max(1, -(-len(hidden) // longest))
    length = max(16, _rounded_up(-(-len(hidden) // chunks), 16))  # so do the chunks of every other tensor
    buffer = hidden.new_empty(length, stride)
    for start in range(0, len(hidden), length):
        here = slice(start, min(start + length, len(hidden)))
        logits = buffer[: here.stop - start, : len(head)]
        yield here, torch.mm(hidden[here], head.T, out=logits)


def _rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _unit(hidden: Tensor) -> float:
    return UNITS.get(hidden.dtype, 1.0)


def _launch(bag: int, vocab: int, gradients: bool) -> dict[str, Any]:
    """Return what the kernel is compiled for: tile and warps by the vocabulary, so that nothing is tried out on first
    use.
    """
    tile = min(LARGEST_TILE, 1 << (vocab - 1).bit_length())
    lanes = 1 << (bag - 1).bit_length()
    return {"S": bag, "LANES": lanes, "TILE": tile, "GRADIENTS": gradients, "num_warps": max(1, tile // PER_WARP)}


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, rounded to fp32 alone where the device can."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    elif left.is_cuda and not torch.version.hip:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    elif left.dtype == torch.float16:  # whose range a sum over positions may leave
        total.addmm_(left.to(total.dtype), right.to(total.dtype))
    else:
        total += left @ right
