"""Triton kernels of the last product of a gated feed-forward layer, which make the activation as they multiply it.

With a stream this narrow a product is as fast as what it reads and writes, most of which is the activation: that is not
written in the forward pass, and its gradient in none. M positions at a time, with all D channels of the stream.

Shapes: the projection is [positions, 2 INNER], gates first, the weight [D, INNER].
"""

import triton
import triton.language as tl

from lilliput.ops.feed_forward.triton_gated import differentiated, load_both, opened, product_of, store_both


@triton.jit
def load_weight(down, channel, INNER: tl.constexpr, D: tl.constexpr, EVEN: tl.constexpr):
    """[D, K] of the weight, at channels [1, K]."""
    pointers = down + tl.arange(0, D)[:, None] * INNER + channel
    return tl.load(pointers) if EVEN else tl.load(pointers, mask=channel < INNER, other=0.0)


@triton.jit(do_not_specialize=["total"])
def product_kernel(
    projected,
    down,
    onto,
    outputs,
    total,
    INNER: tl.constexpr,
    D: tl.constexpr,
    M: tl.constexpr,
    K: tl.constexpr,
    SQUARE: tl.constexpr,
):
    """The weight times the activation, on top of `onto` or nothing, [total, D]."""
    even: tl.constexpr = INNER % K == 0
    at = tl.program_id(0).to(tl.int64) * M + tl.arange(0, M)[:, None]
    sums = tl.zeros([M, D], tl.float32)
    for begin in range(0, INNER, K):
        channel = begin + tl.arange(0, K)[None, :]
        inside = (at < total) if even else (at < total) & (channel < INNER)
        gate, up = load_both(projected, at, channel, inside, INNER)
        opening, _ = opened(gate, SQUARE)
        weight = load_weight(down, channel, INNER, D, even)
        sums = tl.dot(product_of(opening, up, SQUARE).to(weight.dtype), tl.trans(weight), acc=sums)
    places = at * D + tl.arange(0, D)[None, :]
    if onto is not None:
        sums += tl.load(onto + places, mask=at < total, other=0.0).to(tl.float32)
    tl.store(outputs + places, sums.to(outputs.dtype.element_ty), mask=at < total)


@triton.jit(do_not_specialize=["total"])
def product_gradients_kernel(
    projected,
    down,
    grads,
    activation,
    grad_projected,
    total,
    INNER: tl.constexpr,
    D: tl.constexpr,
    M: tl.constexpr,
    K: tl.constexpr,
    SQUARE: tl.constexpr,
):
    """The activation [total, INNER] and the projection's gradient, from that of the product [total, D]."""
    even: tl.constexpr = INNER % K == 0
    at = tl.program_id(0).to(tl.int64) * M + tl.arange(0, M)[:, None]
    grad = tl.load(grads + at * D + tl.arange(0, D)[None, :], mask=at < total, other=0.0)
    for begin in range(0, INNER, K):
        channel = begin + tl.arange(0, K)[None, :]
        inside = (at < total) if even else (at < total) & (channel < INNER)
        gate, up = load_both(projected, at, channel, inside, INNER)
        d = tl.dot(grad, load_weight(down, channel, INNER, D, even))
        made, of_gate, of_up = differentiated(gate, up, d, SQUARE)
        tl.store(activation + at * INNER + channel, made.to(activation.dtype.element_ty), mask=inside)
        store_both(grad_projected, at, channel, inside, of_gate, of_up, INNER)
