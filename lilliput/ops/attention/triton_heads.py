"""Triton kernels between a projection and the heads of attention, R heads at a time, of queries and keys alike.

A head lies in two halves of D/2 channels, which turn together:

    n = x / rms(x) * gain    one' = one cos - two sin    two' = two cos + one sin

Heads are counted over all positions. A program has no loop, so that all it reads is on its way at the same time: one
that took a position's heads in turn had two thirds of the bandwidth.

Shapes: H query heads, G key heads and as many of values, D head width, R heads of a program.
"""

import triton
import triton.language as tl

SMALLEST = tl.constexpr(2.0**-10)


@triton.jit
def heads_here(total, H: tl.constexpr, G: tl.constexpr, R: tl.constexpr):
    """Of this program's heads [R]: their numbers, positions, places at a position, and which of `total` there are."""
    number = tl.program_id(0) * R + tl.arange(0, R)
    return number, number // (H + G), number % (H + G), number < total


@triton.jit
def halves(tensor, number, inside, D: tl.constexpr):
    """Both halves [R, D/2] of a tensor's heads, in fp32."""
    pointers = tensor + number.to(tl.int64)[:, None] * D + tl.arange(0, D // 2)[None, :]
    one = tl.load(pointers, mask=inside[:, None], other=0.0).to(tl.float32)
    return one, tl.load(pointers + D // 2, mask=inside[:, None], other=0.0).to(tl.float32)


@triton.jit
def store_halves(tensor, number, inside, one, two, D: tl.constexpr):
    pointers = tensor + number.to(tl.int64)[:, None] * D + tl.arange(0, D // 2)[None, :]
    tl.store(pointers, one.to(tensor.dtype.element_ty), mask=inside[:, None])
    tl.store(pointers + D // 2, two.to(tensor.dtype.element_ty), mask=inside[:, None])


@triton.jit
def load_turns(table, at, length, inside, D: tl.constexpr):
    """Cosines and sines [R, D/2] at positions `at` of rows of `length`."""
    pointers = table + (at % length).to(tl.int32)[:, None] * (D // 2) + tl.arange(0, D // 2)[None, :]
    cos = tl.load(pointers, mask=inside[:, None], other=0.0)
    return cos, tl.load(pointers + length * (D // 2), mask=inside[:, None], other=0.0)


@triton.jit
def gains_of(query_gain, key_gain, is_query, D: tl.constexpr):
    """Both halves [R, D/2] of each head's gain; a smaller one counts as SMALLEST, since it is divided by."""
    half = tl.arange(0, D // 2)
    one = tl.where(is_query, tl.load(query_gain + half)[None, :], tl.load(key_gain + half)[None, :])
    half += D // 2
    two = tl.where(is_query, tl.load(query_gain + half)[None, :], tl.load(key_gain + half)[None, :])
    return tl.where(tl.abs(one) < SMALLEST, SMALLEST, one), tl.where(tl.abs(two) < SMALLEST, SMALLEST, two)


@triton.jit(do_not_specialize=["total", "length"])
def forward_kernel(
    projected,
    query_gain,
    key_gain,
    table,
    scales,
    eps,
    total,
    length,
    H: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    NORM: tl.constexpr,
    TURN: tl.constexpr,
):
    """Norm and turn `total` queries and keys of a projection [.., H + 2 G, D], in rows of `length`, where they lie.

    Of each, 1 / rms goes into scales [.., H + G].
    """
    number, at, head, inside = heads_here(total, H, G, R)
    place = at * (H + 2 * G) + head
    one, two = halves(projected, place, inside, D)
    if NORM:
        scale = tl.rsqrt((tl.sum(one * one, axis=1) + tl.sum(two * two, axis=1)) / D + eps)
        tl.store(scales + number, scale, mask=inside)
        gain, other_gain = gains_of(query_gain, key_gain, (head < H)[:, None], D)
        one, two = one * scale[:, None] * gain, two * scale[:, None] * other_gain
    if TURN:
        cos, sin = load_turns(table, at, length, inside, D)
        one, two = one * cos - two * sin, two * cos + one * sin
    store_halves(projected, place, inside, one, two, D)


@triton.jit(do_not_specialize=["total", "length"])
def backward_kernel(
    turned,
    query_gain,
    key_gain,
    table,
    scales,
    grads,
    grad_gains,
    total,
    length,
    H: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    NORM: tl.constexpr,
    TURN: tl.constexpr,
):
    """The projection's gradient where that of queries, keys and values lies, and a part of gains' [programs, 2, D].

    What was normed comes of what was turned: y turns back, and n is y / gain.
    """
    number, at, head, inside = heads_here(total, H, G, R)
    place = at * (H + 2 * G) + head
    one, two = halves(grads, place, inside, D)
    cos, sin = 1.0, 0.0
    if TURN:
        cos, sin = load_turns(table, at, length, inside, D)
        one, two = one * cos + two * sin, two * cos - one * sin
    if NORM:
        x, y = halves(turned, place, inside, D)
        if TURN:
            x, y = x * cos + y * sin, y * cos - x * sin
        is_query = (head < H)[:, None]
        gain, other_gain = gains_of(query_gain, key_gain, is_query, D)
        x, y = x / gain, y / other_gain
        mine = grad_gains + tl.program_id(0) * 2 * D + tl.arange(0, D // 2)
        tl.store(mine, tl.sum(tl.where(is_query, one * x, 0.0), axis=0))
        tl.store(mine + D // 2, tl.sum(tl.where(is_query, two * y, 0.0), axis=0))
        tl.store(mine + D, tl.sum(tl.where(is_query, 0.0, one * x), axis=0))
        tl.store(mine + D + D // 2, tl.sum(tl.where(is_query, 0.0, two * y), axis=0))
        one, two = one * gain, two * other_gain
        along = (tl.sum(one * x, axis=1) + tl.sum(two * y, axis=1)) / D
        scale = tl.load(scales + number, mask=inside, other=0.0)[:, None]
        one, two = (one - x * along[:, None]) * scale, (two - y * along[:, None]) * scale
    store_halves(grads, place, inside, one, two, D)
