"""The Triton kernel between the products: logits to a loss, and to their gradients in place.

Shapes: P positions, S tokens in a bag, V vocabulary; logits lie in rows of `stride` numbers, of which V are logits.
"""

import triton
import triton.language as tl


@triton.jit
def softcapped(logits, cap):
    """c tanh(z / c), of logits in fp32; by an exponential, off by 1e-7 c at most. Without a cap, the logits."""
    if cap is not None:
        logits = cap * (1.0 - 2.0 / (tl.exp(logits * (2.0 / cap)) + 1.0))
    return logits


@triton.jit
def load_tile(row, columns, vocab, cap):
    """Logits after the cap in fp32, and -inf beyond the vocabulary."""
    tile = tl.load(row + columns, mask=columns < vocab, other=0.0).to(tl.float32)
    return tl.where(columns < vocab, softcapped(tile, cap), float("-inf"))


@triton.jit
def store_gradients(
    row,
    start,
    vocab,
    tile,
    cap,
    log_sum,
    grad_sum,
    targets,
    weight,
    grad_loss,
    unit,
    S: tl.constexpr,
    TILE: tl.constexpr,
):
    """Over the tile that begins at `start`: softmax times the sum's gradient, less each target's part of it there."""
    columns = start + tl.arange(0, TILE)
    grad = tl.exp(tile - log_sum) * grad_sum
    for s in range(S):
        target = tl.load(targets + s).to(tl.int32)
        grad -= tl.where(tl.arange(0, TILE) == target - start, grad_loss * tl.load(weight + s), 0.0)
    if cap is not None:
        share = tl.maximum(tile * (1.0 / cap), -1.0)  # finite beyond the vocabulary, too
        grad *= 1.0 - share * share
    tl.store(row + columns, (grad * unit).to(row.dtype.element_ty), mask=columns < vocab)


@triton.jit
def cross_entropy_kernel(
    logits,
    targets,
    weight,
    loss,
    lse,
    cap,
    cross_entropy,
    z,
    unit,
    stride,
    vocab,
    S: tl.constexpr,
    TILE: tl.constexpr,
    GRADIENTS: tl.constexpr,
):
    """Loss and log-sum-exp of one position, and the gradients of its logits where they were, in units of `unit`.

    The sum is kept relative to the highest logit so far and scaled down when a higher one comes.
    """
    position = tl.program_id(0).to(tl.int64)
    row = logits + position * stride
    targets += position * S
    weight += position * S

    charge = tl.full([], 0.0, tl.float32)
    at_targets = tl.full([], 0.0, tl.float32)
    for s in range(S):
        target = tl.load(targets + s)
        share = tl.load(weight + s)
        known = (target >= 0) & (target < vocab)
        logit = softcapped(tl.load(row + target, mask=known, other=float("nan")).to(tl.float32), cap)
        at_targets += tl.where(share != 0.0, share * logit, 0.0)
        charge += share

    highest = tl.full([], float("-inf"), tl.float32)
    total = tl.full([], 0.0, tl.float32)
    tile = tl.full([TILE], 0.0, tl.float32)
    for start in range(0, vocab, TILE):
        tile = load_tile(row, start + tl.arange(0, TILE), vocab, cap)
        higher = tl.maximum(highest, tl.max(tile, axis=0))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(tile - higher), axis=0)
        highest = higher
    log_sum = highest + tl.log(total)
    tl.store(loss + position, charge * log_sum - at_targets)
    tl.store(lse + position, log_sum)

    if GRADIENTS:
        grad_sum = charge * (cross_entropy + 2.0 * z * log_sum)
        tl.debug_barrier()  # other threads have read the targets' logits
        # The last tile is still in registers, and is all there is of a small vocabulary.
        last = (vocab - 1) // TILE * TILE
        store_gradients(row, last, vocab, tile, cap, log_sum, grad_sum, targets, weight, cross_entropy, unit, S, TILE)
        for before in range(TILE, last + 1, TILE):  # backwards: what was read last is in a cache
            start = last - before
            tile = load_tile(row, start + tl.arange(0, TILE), vocab, cap)
            store_gradients(
                row, start, vocab, tile, cap, log_sum, grad_sum, targets, weight, cross_entropy, unit, S, TILE
            )
