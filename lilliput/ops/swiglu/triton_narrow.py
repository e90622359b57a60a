"""Triton kernel of the last product of a gated feed-forward layer, which makes the activation as it multiplies it.

With a stream this narrow a product is as fast as what it reads and writes, most of which is the activation. M positions
at a time, with all D channels of the stream.

Shapes: the projection is [positions, 2 INNER], gates first, the weight [D, INNER].
"""

import triton
import triton.language as tl

from lilliput.ops.swiglu.triton_gated import activate, load_both, product_of


@triton.jit(do_not_specialize=["total"])
def down_proj_kernel(
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
        opening, _ = activate(gate, SQUARE)
        pointers = down + tl.arange(0, D)[:, None] * INNER + channel
        weight = tl.load(pointers) if even else tl.load(pointers, mask=channel < INNER, other=0.0)
        sums = tl.dot(product_of(opening, up, SQUARE).to(weight.dtype), tl.trans(weight), acc=sums)
    places = at * D + tl.arange(0, D)[None, :]
    if onto is not None:
        sums += tl.load(onto + places, mask=at < total, other=0.0).to(tl.float32)
    tl.store(outputs + places, sums.to(outputs.dtype.element_ty), mask=at < total)
