"""Triton kernels between a projection and the heads of attention, R heads at a time, of queries and keys alike.

A head lies in two halves of D/2 channels, which turn together:

    n = x / rms(x) * gain    one' = one cos - two sin    two' = two cos + one sin

Heads are counted over all positions. Programs that took a position's heads in turn had three quarters of the bandwidth.

Shapes: H query heads, G key heads and as many of values, D head width, R heads of a program.
"""

import triton
import triton.language as tl

FIRST = tl.constexpr(0)
"""Index of a position's first query head."""


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
    """Both halves [1, D/2]."""
    half = tl.arange(0, D // 2)
    return tl.load(gain + half)[None, :], tl.load(gain + D // 2 + half)[None, :]


@triton.jit
def scale_of(one, two, eps, D: tl.constexpr):
    """1 / rms of each head's vector, [R, 1]."""
    squares = tl.sum(one * one, axis=1, keep_dims=True) + tl.sum(two * two, axis=1, keep_dims=True)
    return tl.rsqrt(squares / D + eps)


@triton.jit(do_not_specialize=["positions", "length"])
def forward_kernel(
    projected,
    query_gain,
    key_gain,
    table,
    turned,
    eps,
    positions,
    length,
    H: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    TURNED: tl.constexpr,
    NORM: tl.constexpr,
    TURN: tl.constexpr,
):
    """Queries and keys of a projection [.., H + 2 G, D], in rows of `length`, normed and turned.

    They become the first of `TURNED` heads a position, which may be their own.
    """
    number = tl.program_id(0) * R + tl.arange(0, R)
    at, head, inside = number // (H + G), number % (H + G), number < positions * (H + G)
    one, two = halves(projected, at * (H + 2 * G) + head, inside, D)
    if NORM:
        scale = scale_of(one, two, eps, D)
        is_query = (head < H)[:, None]
        query_one, query_two = load_gain(query_gain, D)
        key_one, key_two = load_gain(key_gain, D)
        one = one * scale * tl.where(is_query, query_one, key_one)
        two = two * scale * tl.where(is_query, query_two, key_two)
    if TURN:
        cos, sin = load_turns(table, at, length, inside, D)
        one, two = one * cos - two * sin, two * cos + one * sin
    store_halves(turned, at * TURNED + head, inside, one, two, D)


@triton.jit
def _back(
    program,
    projected,
    gain,
    table,
    grads,
    grad_gain,
    eps,
    positions,
    length,
    BEGIN: tl.constexpr,
    COUNT: tl.constexpr,
    ALL: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    TIMES: tl.constexpr,
    NORM: tl.constexpr,
    TURN: tl.constexpr,
):
    """Compute the gradients of the `COUNT` heads per position that begin at head `BEGIN` of `ALL`."""
    gain_one, gain_two = 1.0, 1.0
    if NORM:
        gain_one, gain_two = load_gain(gain, D)
    sum_one, sum_two = tl.zeros([R, D // 2], tl.float32), tl.zeros([R, D // 2], tl.float32)
    for time in range(TIMES):
        number = (program * TIMES + time) * R + tl.arange(0, R)
        at, inside = number // COUNT, number < positions * COUNT
        place = at * ALL + BEGIN + number % COUNT
        one, two = halves(grads, place, inside, D)
        if TURN:
            cos, sin = load_turns(table, at, length, inside, D)
            one, two = one * cos + two * sin, two * cos - one * sin
        if NORM:
            x, y = halves(projected, place, inside, D)
            scale = scale_of(x, y, eps, D)
            x, y = x * scale, y * scale
            sum_one += one * x
            sum_two += two * y
            one, two = one * gain_one, two * gain_two
            along = (tl.sum(one * x, axis=1, keep_dims=True) + tl.sum(two * y, axis=1, keep_dims=True)) / D
            one, two = (one - x * along) * scale, (two - y * along) * scale
        store_halves(grads, place, inside, one, two, D)
    if NORM:
        half = tl.arange(0, D // 2)
        tl.store(grad_gain + half, tl.sum(sum_one, axis=0))
        tl.store(grad_gain + D // 2 + half, tl.sum(sum_two, axis=0))


@triton.jit(do_not_specialize=["positions", "length"])
def backward_kernel(
    projected,
    query_gain,
    key_gain,
    table,
    grads,
    grad_gains,
    eps,
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

    A program takes R heads `TIMES` over, of queries or, later ones, of keys.
    """
    mine, of_queries = tl.program_id(0), tl.cdiv(positions * H, R * TIMES)
    given = (table, grads, grad_gains + mine * D, eps, positions, length)
    if mine < of_queries:
        _back(mine, projected, query_gain, *given, FIRST, H, H + 2 * G, D, R, TIMES, NORM, TURN)
    else:
        _back(mine - of_queries, projected, key_gain, *given, H, G, H + 2 * G, D, R, TIMES, NORM, TURN)
