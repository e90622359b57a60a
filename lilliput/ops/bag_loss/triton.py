"""The loss a chunk of positions at a time: products of the vendor's library, with Triton kernels between them.

Forward, a kernel reads a chunk's logits once and leaves two numbers of each position. Backward, the logits are made
again, a kernel turns them into their gradients in place, and two products take those to the hidden states and the head.

That is 8 D V operations and 16 V bytes of 16-bit logits a position. Gradients made in the forward pass would spare the
second making of the logits, a quarter of both. But then the upstream gradients must be known beforehand (that of a
z-loss is not: it depends on the log-sum-exp), gradients [P, D] and [V, D] are kept through the backward pass of the
layers, and a forward pass that nobody differentiates pays for them.

Shapes: P positions, S tokens in a bag, D width, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lilliput.ops.bag_loss.charged import Charged
from lilliput.ops.bag_loss.triton_kernels import charge_kernel, differentiate_kernel

BUFFER = 2**28
"""Bytes of the logits that exist at a time."""
LARGEST_TILE = 8192
"""Logits that a program holds at a time: 32 in each thread of 8 warps."""


def fused(hidden: Tensor, head: Tensor, targets: Tensor, weight: Tensor, cap: float | None) -> tuple[Tensor, Tensor]:
    """See `lilliput.ops.bag_loss.bag_loss`; [P, D], [V, D], [P, S] and [P, S] -> loss [P] and logsumexp [P].

    A charged target that is no token makes the loss NaN: a device cannot raise.
    """
    return forward(hidden, head, targets, weight.float(), cap)


# Both passes read back how many positions are charged, which a captured graph could not.
@torch.library.custom_op("lilliput::bag_loss", mutates_args=(), tags=(torch.Tag.cudagraph_unsafe,))
def forward(hidden: Tensor, head: Tensor, targets: Tensor, weight: Tensor, cap: float | None) -> tuple[Tensor, Tensor]:
    """The loss [P] and the log-sum-exp [P]."""
    charged = Charged(weight)
    chosen, targets, weight = (charged.take(tensor).contiguous() for tensor in (hidden, targets, weight))
    loss, lse = (torch.empty(len(chosen), dtype=torch.float32, device=hidden.device) for _ in range(2))
    cast = head.to(hidden.dtype)
    launch = _launch(targets.shape[1], len(head))
    with torch.cuda.device_of(hidden):
        for here, logits in _logits(chosen, cast):
            charge_kernel[(len(logits),)](
                logits,
                targets[here],
                weight[here],
                loss[here],
                lse[here],
                cap,
                logits.stride(0),
                len(head),
                **launch,
            )
    return charged.put(loss, len(hidden)), charged.put(lse, len(hidden))


@torch.library.custom_op("lilliput::bag_loss_gradients", mutates_args=(), tags=(torch.Tag.cudagraph_unsafe,))
def backward(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    weight: Tensor,
    cap: float | None,
    lse: Tensor,
    grad_loss: Tensor,
    grad_lse: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of the hidden states [P, D] and of the head [V, D], whose sum over chunks is fp32."""
    charged = Charged(weight)
    chosen, targets, weight, lse, grad_loss, grad_lse = (
        charged.take(tensor).contiguous() for tensor in (hidden, targets, weight, lse, grad_loss, grad_lse)
    )
    grad_hidden = torch.empty_like(chosen)
    grad_head = torch.zeros(head.shape, dtype=torch.float32, device=head.device)
    cast = head.to(hidden.dtype)
    launch = _launch(targets.shape[1], len(head))
    with torch.cuda.device_of(hidden):
        for here, logits in _logits(chosen, cast):
            differentiate_kernel[len(logits), -(-len(head) // launch["TILE"])](
                logits,
                targets[here],
                weight[here],
                lse[here],
                grad_loss[here],
                grad_lse[here],
                cap,
                logits.stride(0),
                len(head),
                **launch,
            )
            torch.mm(logits, cast, out=grad_hidden[here])
            _add_product(grad_head, logits.T, chosen[here])
    return charged.put(grad_hidden, len(hidden)), grad_head.to(head.dtype)


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


def _launch(bag: int, vocab: int) -> dict[str, Any]:
    """What kernels are compiled for: a tile and warps by the vocabulary, so that nothing is tried out on first use."""
    tile = min(LARGEST_TILE, 1 << (vocab - 1).bit_length())
    return {"S": bag, "TILE": tile, "num_warps": min(8, max(1, tile // 1024))}


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, rounded to fp32 alone where the device can."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    elif left.is_cuda and not torch.version.hip:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total += left @ right


@forward.register_fake
def _(hidden: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    loss, lse = (torch.empty(len(hidden), dtype=torch.float32, device=hidden.device) for _ in range(2))
    return loss, lse


@backward.register_fake
def _(hidden: Tensor, head: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return hidden.new_empty(hidden.shape), head.new_empty(head.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.cap = inputs
    ctx.save_for_backward(*tensors, output[1])


def _differentiate(ctx: Any, grad_loss: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
    hidden, head, targets, weight, lse = ctx.saved_tensors
    return *backward(hidden, head, targets, weight, ctx.cap, lse, grad_loss, grad_lse), None, None, None


forward.register_autograd(_differentiate, setup_context=_keep)
