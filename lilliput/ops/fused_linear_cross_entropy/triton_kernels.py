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
def store_gradients(row, columns, mask, logits, cap, log_sum, grad_sum, grad_targets, unit):
    """Gradient of some logits after the cap: softmax times the sum's gradient, less their gradient as targets."""
    grad = tl.exp(logits - log_sum) * grad_sum - grad_targets
    if cap is not None:
        share = tl.maximum(logits * (1.0 / cap), -1.0)  # finite beyond the vocabulary, too
        grad *= 1.0 - share * share
    tl.store(row + columns, (grad * unit).to(row.dtype.element_ty), mask=mask)


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
    LANES: tl.constexpr,
    TILE: tl.constexpr,
    GRADIENTS: tl.constexpr,
):
    """Losses and log-sum-exp of one position, and the gradients of its logits where they were, in units of `unit`.

    The sum is kept relative to the highest logit so far and scaled down when a higher one comes. Targets lie in `LANES`
    lanes, a power of two: tiles hear nothing of them, and the gradients of their logits are written over those of the
    tiles, so that many targets cost what one does.
    """
    position = tl.program_id(0).to(tl.int64)
    row = logits + position * stride
    lane = tl.arange(0, LANES)
    there = lane < S
    target = tl.load(targets + position * S + lane, mask=there, other=0)
    share = tl.load(weight + position * S + lane, mask=there, other=0.0)
    known = (target >= 0) & (target < vocab)
    at_targets = softcapped(tl.load(row + target, mask=known, other=float("nan")).to(tl.float32), cap)
    charge = tl.sum(share, axis=0)

    highest = tl.full([], float("-inf"), tl.float32)
    total = tl.full([], 0.0, tl.float32)
    tile = tl.full([TILE], 0.0, tl.float32)
    for start in range(0, vocab, TILE):
        tile = load_tile(row, start + tl.arange(0, TILE), vocab, cap)
        higher = tl.maximum(highest, tl.max(tile, axis=0))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(tile - higher), axis=0)
        highest = higher
    log_sum = highest + tl.log(total)
    tl.store(loss + position * S + lane, tl.where(share != 0.0, share * (log_sum - at_targets), 0.0), mask=there)
    tl.store(lse + position, log_sum)

    if GRADIENTS:
        grad_sum = charge * (cross_entropy + 2.0 * z * log_sum)
        tl.debug_barrier()  # other threads have read the targets' logits
        # The last tile is still in registers, and is all there is of a small vocabulary.
        last = (vocab - 1) // TILE * TILE
        columns = last + tl.arange(0, TILE)
        store_gradients(row, columns, columns < vocab, tile, cap, log_sum, grad_sum, 0.0, unit)
        for before in range(TILE, last + 1, TILE):  # backwards: what was read last is in a cache
            columns = last - before + tl.arange(0, TILE)
            tile = load_tile(row, columns, vocab, cap)
            store_gradients(row, columns, columns < vocab, tile, cap, log_sum, grad_sum, 0.0, unit)
        tl.debug_barrier()  # other threads have written what the targets' gradients take the place of
        # Of a target that is there several times, each lane writes the same number.
        own = cross_entropy * tl.sum(tl.where(target[:, None] == target[None, :], share[None, :], 0.0), axis=1)
        store_gradients(row, target, there & known, at_targets, cap, log_sum, grad_sum, own, unit)
