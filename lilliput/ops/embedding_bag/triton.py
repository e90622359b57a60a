"""Embeddings of bags as Triton kernels, for CUDA and ROCm devices.

The gradient of a token's row is a sum over the places where the token is. Places are sorted by token first, which keeps
their order, and cut into pieces of equal length. One program sums up all runs of equal tokens in a piece, by a product
with the matrix that says which places have the same token; of runs that go on in the next pieces a second kernel adds
the parts. So frequent tokens cost no more than rare ones, nothing is added atomically, and every sum has one order.

Shapes: P positions, S tokens in a bag, D width, V vocabulary.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

from lilliput.ops.compiler import operator

COLUMNS = 64
"""Channels of a program: whole cache lines, in 16 bits too."""
ROWS = 32
"""Positions, or places, of a program; with 64 the product of fp32 rows spills registers (sm_90, Triton 3.6)."""
WARPS = 4
TOGETHER = tl.constexpr(16)
"""Parts of a row that are added at a time."""


def embedding_bag_triton(tokens: Tensor, weight: Tensor, shares: Tensor | None, dtype: torch.dtype) -> Tensor:
    """See `lilliput.ops.embedding_bag.embedding_bag`."""
    assert weight.dtype != torch.float64 and (weight.is_cuda or knobs.runtime.interpret)
    return means(tokens, weight, shares, dtype)


@triton.jit(do_not_specialize=["total", "vocab"])
def means_kernel(
    tokens,
    weight,
    shares,
    out,
    total,
    vocab,
    D: tl.constexpr,
    S: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The means of ROWS bags, or their sums by shares."""
    position = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (position < total)[:, None] & (channel < D)
    mean = tl.zeros([ROWS, COLUMNS], tl.float32)
    for s in range(S):
        token = tl.load(tokens + position * S + s, mask=position < total, other=0)
        known = inside & ((token >= 0) & (token < vocab))[:, None]
        row = tl.load(weight + token[:, None] * D + channel, mask=known, other=float("nan")).to(tl.float32)
        if shares is not None:
            row *= tl.load(shares + position * S + s, mask=position < total, other=0.0)[:, None]
        mean += row
    if shares is None:
        mean /= S
    tl.store(out + position[:, None] * D + channel, mean.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["total"])
def sums_kernel(
    grad,
    tokens,
    places,
    begins,
    shares,
    grad_weight,
    parts,
    total,
    D: tl.constexpr,
    S: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Sum a piece of sorted tokens: the rows of those that are in it alone, and parts [pieces, 2, D] of the others.

    Of these there are two at most: a run that came from the piece before, and another one that goes on in the next.
    """
    start = tl.program_id(0).to(tl.int64) * ROWS
    place = start + tl.arange(0, ROWS)
    channel = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = place < total
    token = tl.load(tokens + place, mask=inside, other=-1)
    unordered = tl.load(places + place, mask=inside, other=0)
    bag = unordered // S
    there = inside[:, None] & (channel < D)
    values = tl.load(grad + bag[:, None] * D + channel, mask=there, other=0.0)
    if shares is not None:
        values = values.to(tl.float32) * tl.load(shares + unordered, mask=inside, other=0.0)[:, None]
    equal = (token[:, None] == token[None, :]).to(values.dtype)
    sums = tl.dot(equal, values, input_precision="ieee")
    if shares is None:
        sums *= 1.0 / S

    begin = tl.load(begins + token, mask=inside, other=0)
    end = tl.load(begins + token + 1, mask=inside, other=0)
    whole = (begin >= start) & (end <= start + ROWS)
    last = (place == end - 1) | (tl.arange(0, ROWS) == ROWS - 1)
    row = grad_weight + token.to(tl.int64)[:, None] * D + channel
    tl.store(row, sums.to(grad_weight.dtype.element_ty), mask=there & (last & whole)[:, None])
    part = 2 * tl.program_id(0).to(tl.int64) + (begin >= start).to(tl.int64)
    tl.store(parts + part[:, None] * D + channel, sums, mask=there & (last & (whole == 0))[:, None])


@triton.jit
def joins_kernel(
    tokens,
    begins,
    grad_weight,
    parts,
    D: tl.constexpr,
    S: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The row of the token that begins in a piece, not the last one, and goes on in others."""
    piece = tl.program_id(0).to(tl.int64)
    token = tl.load(tokens + (piece + 1) * ROWS - 1).to(tl.int64)
    begin, end = tl.load(begins + token), tl.load(begins + token + 1)
    if (begin >= piece * ROWS) & (end > (piece + 1) * ROWS):
        channel = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
        total = tl.load(parts + (2 * piece + 1) * D + channel, mask=channel < D, other=0.0)
        more = tl.zeros([TOGETHER, COLUMNS], tl.float32)
        after = (end - 1) // ROWS + 1
        for other in range(piece + 1, after, TOGETHER):
            part = other + tl.arange(0, TOGETHER)
            there = (part < after)[:, None] & (channel < D)[None, :]
            more += tl.load(parts + 2 * part[:, None] * D + channel[None, :], mask=there, other=0.0)
        total += tl.sum(more, axis=0)
        tl.store(grad_weight + token * D + channel, total.to(grad_weight.dtype.element_ty), mask=channel < D)


@operator("lilliput::embedding_bag")
def means(tokens: Tensor, weight: Tensor, shares: Tensor | None, dtype: torch.dtype) -> Tensor:
    """[.., S] and [V, D], with shares [.., S] or none -> [.., D]."""
    tokens, weight = tokens.contiguous(), weight.contiguous()
    vocab, width = weight.shape
    out = _means(tokens, weight, shares, dtype)
    total, shares = out.numel() // width, _whole(shares)
    _launch(means_kernel, -(-total // ROWS), tokens, weight, shares, out, total, vocab, D=width, S=tokens.shape[-1])
    return out


@operator("lilliput::bag_embedding_gradient")
def gradient(tokens: Tensor, grad: Tensor, shares: Tensor | None, vocab: int, dtype: torch.dtype) -> Tensor:
    """Ids [.., S] and the gradient of the means [.., D] -> that of the weight [V, D], in its precision."""
    grad, bag, width = grad.contiguous(), tokens.shape[-1], grad.shape[-1]
    ordered, places = tokens.flatten().to(torch.int32).sort(stable=True)
    ids = torch.arange(vocab + 1, dtype=torch.int32, device=tokens.device)
    begins = torch.searchsorted(ordered, ids, out_int32=True)
    grad_weight, shares = _gradient(tokens, grad, shares, vocab, dtype).zero_(), _whole(shares)
    pieces = -(-len(ordered) // ROWS)
    parts = grad.new_empty(pieces, 2, width, dtype=torch.float32)
    inputs = grad, ordered, places, begins, shares
    _launch(sums_kernel, pieces, *inputs, grad_weight, parts, len(ordered), D=width, S=bag)
    if pieces > 1:
        _launch(joins_kernel, pieces - 1, ordered, begins, grad_weight, parts, D=width, S=bag)
    return grad_weight


def _launch(kernel: Any, programs: int, first: Tensor, *others: Any, D: int, S: int) -> None:
    with torch.cuda.device_of(first):
        kernel[programs, -(-D // COLUMNS)](first, *others, D=D, S=S, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=WARPS)


def _whole(shares: Tensor | None) -> Tensor | None:
    return None if shares is None else shares.float().contiguous()


@means.register_fake
def _means(tokens: Tensor, weight: Tensor, shares: Tensor | None, dtype: torch.dtype) -> Tensor:
    return weight.new_empty(*tokens.shape[:-1], weight.shape[1], dtype=dtype)


@gradient.register_fake
def _gradient(tokens: Tensor, grad: Tensor, shares: Tensor | None, vocab: int, dtype: torch.dtype) -> Tensor:
    return grad.new_empty(vocab, grad.shape[-1], dtype=dtype)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    tokens, weight, shares, _ = inputs
    ctx.save_for_backward(tokens, shares)
    ctx.vocab, ctx.precision = len(weight), weight.dtype


def _differentiate(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None, None]:
    tokens, shares = ctx.saved_tensors
    return None, gradient(tokens, grad, shares, ctx.vocab, ctx.precision), None, None


means.register_autograd(_differentiate, setup_context=_keep)
