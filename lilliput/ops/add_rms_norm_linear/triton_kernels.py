"""Triton kernels of products that end in the whole width of a stream, M positions at a time.

Tensors are read and written through descriptors, by Hopper's units for that: of what a kernel that loads them itself
takes, 6 to 20% is spared. What lies outside is read as zero and not written.

Shapes: D channels of the stream, INNER of the branch that joins it, E of the one that begins.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["total"])
def join_kernel(
    inner,
    weight,
    onto,
    stream,
    normed,
    scales,
    total,
    eps,
    INNER: tl.constexpr,
    D: tl.constexpr,
    M: tl.constexpr,
    K: tl.constexpr,
    STAGES: tl.constexpr,
):
    """stream = onto + inner weight^T, normed = stream scale, scale = 1 / sqrt(mean stream^2 + eps)."""
    first = tl.program_id(0) * M
    sums = tl.zeros([M, D], tl.float32)
    for begin in tl.range(0, INNER, K, num_stages=STAGES):  # pyright: ignore[reportGeneralTypeIssues]
        sums = tl.dot(inner.load([first, begin]), weight.load([0, begin]).T, acc=sums)
    joined = (sums + onto.load([first, 0]).to(tl.float32)).to(stream.dtype)
    stream.store([first, 0], joined)
    x = joined.to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, axis=1, keep_dims=True) / D + eps)
    normed.store([first, 0], (x * scale).to(normed.dtype))
    at = first + tl.arange(0, M)[:, None]
    tl.store(scales + at, scale, mask=at < total)


@triton.jit(do_not_specialize=["total"])
def begin_gradients_kernel(
    grad_projected,
    weight,
    normed,
    onto,
    grads,
    scales,
    total,
    E: tl.constexpr,
    D: tl.constexpr,
    M: tl.constexpr,
    K: tl.constexpr,
    STAGES: tl.constexpr,
):
    """grads = onto + scale (d - normed mean(d normed)), where d = grad_projected weight is the norm's gradient.

    As many programs as there are multiprocessors, each of which begins to read for its next positions before it is done
    with the last ones.
    """
    for tile in tl.range(tl.program_id(0), tl.cdiv(total, M), tl.num_programs(0), flatten=True):  # pyright: ignore[reportGeneralTypeIssues]
        first = tile * M
        d = tl.zeros([M, D], tl.float32)
        for begin in tl.range(0, E, K, num_stages=STAGES):  # pyright: ignore[reportGeneralTypeIssues]
            d = tl.dot(grad_projected.load([first, begin]), weight.load([begin, 0]), acc=d)
        n = normed.load([first, 0]).to(tl.float32)
        at = first + tl.arange(0, M)[:, None]
        scale = tl.load(scales + at, mask=at < total, other=0.0)
        d = (d - n * (tl.sum(d * n, axis=1, keep_dims=True) / D)) * scale
        grads.store([first, 0], (d + onto.load([first, 0]).to(tl.float32)).to(grads.dtype))
