"""Triton kernels between the products: logits to a loss, and logits to their gradients in place.

Shapes: P positions, S tokens in a bag, V vocabulary; logits lie in rows of `stride` numbers, of which V are logits.
"""

import triton
import triton.language as tl


@triton.jit
def bend(logits, cap):
    """tanh(z / c), whose c-fold are the logits; by an exponential in fp32, off by 1e-7 at most."""
    return 1.0 - 2.0 / (tl.exp(logits * (2.0 / cap)) + 1.0)


@triton.jit
def charge_kernel(logits, targets, weight, loss, lse, cap, stride, vocab, S: tl.constexpr, TILE: tl.constexpr):
    """Loss and log-sum-exp of one position, from one reading of its logits.

    The sum is kept relative to the highest logit so far and scaled down when a higher one comes.
    """
    position = tl.program_id(0).to(tl.int64)
    row = logits + position * stride
    highest = tl.full([], float("-inf"), tl.float32)
    total = tl.full([], 0.0, tl.float32)
    for start in range(0, vocab, TILE):
        columns = start + tl.arange(0, TILE)
        tile = tl.load(row + columns, mask=columns < vocab, other=0.0).to(tl.float32)
        if cap is not None:
            tile = cap * bend(tile, cap)
        tile = tl.where(columns < vocab, tile, float("-inf"))
        higher = tl.maximum(highest, tl.max(tile, axis=0))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(tile - higher), axis=0)
        highest = higher
    log_sum = highest + tl.log(total)

    charge = tl.full([], 0.0, tl.float32)
    for s in range(S):
        target = tl.load(targets + position * S + s)
        share = tl.load(weight + position * S + s)
        known = (target >= 0) & (target < vocab)
        logit = tl.load(row + target, mask=known, other=float("nan")).to(tl.float32)
        if cap is not None:
            logit = cap * bend(logit, cap)
        charge += tl.where(share != 0.0, share * (log_sum - logit), 0.0)
    tl.store(loss + position, charge)
    tl.store(lse + position, log_sum)


@triton.jit
def differentiate_kernel(
    logits,
    targets,
    weight,
    lse,
    grad_loss,
    grad_lse,
    cap,
    stride,
    vocab,
    S: tl.constexpr,
    TILE: tl.constexpr,
):
    """A tile of one position's logits to gradients: softmax times the charge, less each target's part of it there."""
    position = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * TILE + tl.arange(0, TILE)
    pointers = logits + position * stride + columns
    logit = tl.load(pointers, mask=columns < vocab, other=0.0).to(tl.float32)
    slope = 1.0
    if cap is not None:
        bent = bend(logit, cap)
        logit, slope = cap * bent, 1.0 - bent * bent
    charge = tl.load(grad_loss + position)
    total = tl.load(grad_lse + position)
    for s in range(S):
        total += charge * tl.load(weight + position * S + s)
    grad = tl.exp(logit - tl.load(lse + position)) * total
    for s in range(S):
        target = tl.load(targets + position * S + s)
        grad -= tl.where(columns == target, charge * tl.load(weight + position * S + s), 0.0)
    tl.store(pointers, (grad * slope).to(logits.dtype.element_ty), mask=columns < vocab)
