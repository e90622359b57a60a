"""Triton kernels between a projection and the heads of attention, R heads at a time, of queries and keys alike.

A head lies in two halves of D/2 channels, which turn together:

    n = x / rms(x) * gain    one' = one cos - two sin    two' = two cos + one sin

Heads are counted over all positions. Programs that took a position's heads in turn had three quarters of the bandwidth.

Shapes: H query heads, G key heads and as many of values, D head width, R heads of a program.
"""

import triton
import triton.language as tl

SMALLEST = tl.constexpr(2.0**-10)
FIRST = tl.constexpr(0)


@triton.jit
def halves(tensor, place, inside, D: tl.constexpr):
    """Both halves [R, D/2] of a tensor's heads, in fp32."""
    pointers = tensor + place.to(tl.int64)[:, None] * D + tl.arange(0, D // 2)[None, :]
    one = tl.load(pointers, mask=inside[:, None], other=0.0).to(tl.float32)
    return one, tl.load(pointers + D // 2, mask=inside[:, None], other=0.0).to(tl.float32)


@triton.jit
def store_halves(tensor, place, inside, one, two, D: tl.constexpr):
    pointers = tensor + place.to(tl.int64)[:, None] * D + tl.arange(0, D // 2)[None, :]
    tl.store(pointers, one.to(tensor.dtype.element_ty), mask=inside[:, None])
    tl.store(pointers + D // 2, two.to(tensor.dtype.element_ty), mask=inside[:, None])


@triton.jit
def load_turns(table, at, length, inside, D: tl.constexpr):
    """Cosines and sines [R, D/2] at positions `at` of rows of `length`."""
    pointers = table + (at % length).to(tl.int32)[:, None] * (D // 2) + tl.arange(0, D // 2)[None, :]
    cos = tl.load(pointers, mask=inside[:, None], other=0.0)
    return cos, tl.load(pointers + length * (D // 2), mask=inside[:, None], other=0.0)


@triton.jit
def load_gain(gain, D: tl.constexpr):
    """Both halves [1, D/2]; what is smaller counts as SMALLEST, since it is divided by."""
    half = tl.arange(0, D // 2)
    one, two = tl.load(gain + half)[None, :], tl.load(gain + D // 2 + half)[None, :]
    return tl.where(tl.abs(one) < SMALLEST, SMALLEST, one), tl.where(tl.abs(two) < SMALLEST, SMALLEST, two)


@triton.jit
def heads_here(positions, H: tl.constexpr, G: tl.constexpr, R: tl.constexpr):
    """Of this program's heads [R]: their numbers, positions, heads at a position, and which of them there are."""
    number = tl.program_id(0) * R + tl.arange(0, R)
    return number, number // (H + G), number % (H + G), number < positions * (H + G)


@triton.jit(do_not_specialize=["positions", "length"])
def forward_kernel(
    projected,
    query_gain,
    key_gain,
    table,
    scales,
    eps,
    positions,
    length,
    H: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    NORM: tl.constexpr,
    TURN: tl.constexpr,
):
    """Norm and turn queries and keys of a projection [.., H + 2 G, D], in rows of `length`, where they lie.

    Of each, 1 / rms goes into scales [.., H + G].
    """
    number, at, head, inside = heads_here(positions, H, G, R)
    place = at * (H + 2 * G) + head
    one, two = halves(projected, place, inside, D)
    if NORM:
        scale = tl.rsqrt((tl.sum(one * one, axis=1) + tl.sum(two * two, axis=1)) / D + eps)
        tl.store(scales + number, tl.minimum(scale, 65504.0).to(scales.dtype.element_ty), mask=inside)
        is_query = (head < H)[:, None]
        query_one, query_two = load_gain(query_gain, D)
        key_one, key_two = load_gain(key_gain, D)
        one = one * scale[:, None] * tl.where(is_query, query_one, key_one)
        two = two * scale[:, None] * tl.where(is_query, query_two, key_two)
    if TURN:
        cos, sin = load_turns(table, at, length, inside, D)
        one, two = one * cos - two * sin, two * cos + one * sin
    store_halves(projected, place, inside, one, two, D)


@triton.jit
def _back(
    program,
    turned,
    gain,
    table,
    scales,
    grads,
    grad_gain,
    positions,
    length,
    BEGIN: tl.constexpr,
    COUNT: tl.constexpr,
    ALL: tl.constexpr,
    SCALED: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    TIMES: tl.constexpr,
    NORM: tl.constexpr,
    TURN: tl.constexpr,
):
    """Of the `COUNT` heads a position that begin at head `BEGIN` of `ALL`; the first `SCALED` ones have scales."""
    gain_one, gain_two = 1.0, 1.0
    if NORM:
        gain_one, gain_two = load_gain(gain, D)
    sum_one, sum_two = tl.zeros([R, D // 2], tl.float32), tl.zeros([R, D // 2], tl.float32)
    for time in range(TIMES):
        number = (program * TIMES + time) * R + tl.arange(0, R)
        at, head, inside = number // COUNT, BEGIN + number % COUNT, number < positions * COUNT
        one, two = halves(grads, at * ALL + head, inside, D)
        cos, sin = 1.0, 0.0
        if TURN:
            cos, sin = load_turns(table, at, length, inside, D)
            one, two = one * cos + two * sin, two * cos - one * sin
        if NORM:
            x, y = halves(turned, at * ALL + head, inside, D)
            if TURN:
                x, y = x * cos + y * sin, y * cos - x * sin
            along_one, along_two = one * x, two * y  # as of n and a gradient times gain
            sum_one += along_one
            sum_two += along_two
            along = ((tl.sum(along_one, axis=1) + tl.sum(along_two, axis=1)) / D)[:, None]
            scale = tl.load(scales + at * SCALED + head, mask=inside, other=0.0).to(tl.float32)[:, None]
            one = (one * gain_one - x * along / gain_one) * scale
            two = (two * gain_two - y * along / gain_two) * scale
        store_halves(grads, at * ALL + head, inside, one, two, D)
    if NORM:
        half = tl.arange(0, D // 2)[None, :]
        tl.store(grad_gain + half, tl.sum(sum_one / gain_one, axis=0, keep_dims=True))
        tl.store(grad_gain + D // 2 + half, tl.sum(sum_two / gain_two, axis=0, keep_dims=True))


@triton.jit(do_not_specialize=["positions", "length"])
def backward_kernel(
    turned,
    query_gain,
    key_gain,
    table,
    scales,
    grads,
    grad_gains,
    positions,
    length,
    H: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    TIMES: tl.constexpr,
    NORM: tl.constexpr,
    TURN: tl.constexpr,
):
    """The projection's gradient where that of queries, keys and values lies, and parts of the gains' [programs, D].

    What was normed comes of what was turned: it turns back, and then is n times gain. A program takes R heads `TIMES`
    over, of queries or, later ones, of keys.
    """
    mine, of_queries = tl.program_id(0), tl.cdiv(positions * H, R * TIMES)
    given = (table, scales, grads, grad_gains + mine * D, positions, length)
    if mine < of_queries:
        _back(mine, turned, query_gain, *given, FIRST, H, H + 2 * G, H + G, D, R, TIMES, NORM, TURN)
    else:
        _back(mine - of_queries, turned, key_gain, *given, H, G, H + 2 * G, H + G, D, R, TIMES, NORM, TURN)
