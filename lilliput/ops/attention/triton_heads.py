"""Triton kernels between a projection and the heads of attention, P positions at a time with all their heads.

A head lies in two halves of D/2 channels, which turn together:

    n = x / rms(x) * gain    one' = one cos - two sin    two' = two cos + one sin

Shapes: P positions of a program, H query heads, G key heads, D head width.
"""

import triton
import triton.language as tl


@triton.jit
def halves(tensor, at, heads, head, inside, D: tl.constexpr):
    """Both halves [P, D/2] of one of a tensor's heads at positions `at`, in fp32."""
    pointers = tensor + at[:, None] * (heads * D) + head * D + tl.arange(0, D // 2)[None, :]
    one = tl.load(pointers, mask=inside[:, None], other=0.0).to(tl.float32)
    return one, tl.load(pointers + D // 2, mask=inside[:, None], other=0.0).to(tl.float32)


@triton.jit
def store_halves(tensor, at, heads, head, inside, one, two, D: tl.constexpr):
    pointers = tensor + at[:, None] * (heads * D) + head * D + tl.arange(0, D // 2)[None, :]
    tl.store(pointers, one.to(tensor.dtype.element_ty), mask=inside[:, None])
    tl.store(pointers + D // 2, two.to(tensor.dtype.element_ty), mask=inside[:, None])


@triton.jit
def load_turns(table, at, length, inside, D: tl.constexpr):
    """Cosines and sines [P, D/2] at positions `at` of rows of `length`."""
    pointers = table + (at % length).to(tl.int32)[:, None] * (D // 2) + tl.arange(0, D // 2)[None, :]
    cos = tl.load(pointers, mask=inside[:, None], other=0.0)
    return cos, tl.load(pointers + length * (D // 2), mask=inside[:, None], other=0.0)


@triton.jit
def scale_of(one, two, eps, D: tl.constexpr):
    """1 / rms of each head's vector, [P, 1]."""
    squares = tl.sum(one * one, axis=1, keep_dims=True) + tl.sum(two * two, axis=1, keep_dims=True)
    return tl.rsqrt(squares / D + eps)


@triton.jit
def _forth(
    projected,
    turned,
    gain,
    turn,
    at,
    inside,
    eps,
    begin,
    COUNT: tl.constexpr,
    ALL: tl.constexpr,
    D: tl.constexpr,
    NORM: tl.constexpr,
    TURN: tl.constexpr,
):
    """Norm and turn the `COUNT` heads that begin at head `begin` of `ALL` of the projection."""
    half = tl.arange(0, D // 2)
    cos, sin = turn
    for head in range(COUNT):
        one, two = halves(projected, at, ALL, begin + head, inside, D)
        if NORM:
            scale = scale_of(one, two, eps, D)
            one = one * scale * tl.load(gain + half)[None, :]
            two = two * scale * tl.load(gain + D // 2 + half)[None, :]
        if TURN:
            one, two = one * cos - two * sin, two * cos + one * sin
        store_halves(turned, at, COUNT, head, inside, one, two, D)


@triton.jit(do_not_specialize=["total", "length"])
def forward_kernel(
    projected,
    query_gain,
    key_gain,
    table,
    queries,
    keys,
    eps,
    total,
    length,
    H: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    P: tl.constexpr,
    NORM: tl.constexpr,
    TURN: tl.constexpr,
):
    """Queries [.., H, D] and keys [.., G, D] of P of `total` positions, which lie in rows of `length`."""
    at = tl.program_id(0).to(tl.int64) * P + tl.arange(0, P)
    inside = at < total
    turn = (1.0, 0.0)
    if TURN:
        turn = load_turns(table, at, length, inside, D)
    _forth(projected, queries, query_gain, turn, at, inside, eps, 0, H, H + 2 * G, D, NORM, TURN)
    _forth(projected, keys, key_gain, turn, at, inside, eps, H, G, H + 2 * G, D, NORM, TURN)


@triton.jit
def _back(
    projected,
    grads,
    grad_projected,
    gain,
    turn,
    at,
    inside,
    eps,
    begin,
    COUNT: tl.constexpr,
    ALL: tl.constexpr,
    D: tl.constexpr,
    NORM: tl.constexpr,
    TURN: tl.constexpr,
):
    """Gradients of `COUNT` heads of the projection, from those of the heads; returns the gain's, in halves [D/2]."""
    half = tl.arange(0, D // 2)
    cos, sin = turn
    grad_one, grad_two = tl.zeros([D // 2], tl.float32), tl.zeros([D // 2], tl.float32)
    for head in range(COUNT):
        one, two = halves(grads, at, COUNT, head, inside, D)
        if TURN:
            one, two = one * cos + two * sin, two * cos - one * sin
        if NORM:
            x, y = halves(projected, at, ALL, begin + head, inside, D)
            scale = scale_of(x, y, eps, D)
            x, y = x * scale, y * scale
            grad_one += tl.sum(one * x, axis=0)
            grad_two += tl.sum(two * y, axis=0)
            one = one * tl.load(gain + half)[None, :]
            two = two * tl.load(gain + D // 2 + half)[None, :]
            along = (tl.sum(one * x, axis=1, keep_dims=True) + tl.sum(two * y, axis=1, keep_dims=True)) / D
            one, two = (one - x * along) * scale, (two - y * along) * scale
        store_halves(grad_projected, at, ALL, begin + head, inside, one, two, D)
    return grad_one, grad_two


@triton.jit(do_not_specialize=["total", "length"])
def backward_kernel(
    projected,
    query_gain,
    key_gain,
    table,
    grad_queries,
    grad_keys,
    grad_values,
    grad_projected,
    grad_gains,
    eps,
    total,
    length,
    H: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    P: tl.constexpr,
    NORM: tl.constexpr,
    TURN: tl.constexpr,
):
    """The projection's gradient [.., (H + 2 G) D] at P positions, and their part of the gains' [programs, 2, D]."""
    at = tl.program_id(0).to(tl.int64) * P + tl.arange(0, P)
    inside = at < total
    half = tl.arange(0, D // 2)
    turn = (1.0, 0.0)
    if TURN:
        turn = load_turns(table, at, length, inside, D)
    settings = (turn, at, inside, eps)
    one, two = _back(projected, grad_queries, grad_projected, query_gain, *settings, 0, H, H + 2 * G, D, NORM, TURN)
    three, four = _back(projected, grad_keys, grad_projected, key_gain, *settings, H, G, H + 2 * G, D, NORM, TURN)
    if NORM:
        mine = grad_gains + tl.program_id(0) * 2 * D
        tl.store(mine + half, one)
        tl.store(mine + D // 2 + half, two)
        tl.store(mine + D + half, three)
        tl.store(mine + D + D // 2 + half, four)
    for head in range(G):
        low, high = halves(grad_values, at, G, head, inside, D)
        store_halves(grad_projected, at, H + 2 * G, H + G + head, inside, low, high, D)
