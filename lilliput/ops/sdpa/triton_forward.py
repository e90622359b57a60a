"""Triton kernels of attention, forward: what each document spans, and softmax sums a block of keys at a time.

FlashAttention (arXiv 2205.14135, 2307.08691) with key heads shared by groups of query heads. A query sees the keys from
the beginning of its document to itself, so that a block of queries visits

    keys that all of its queries see                          without a mask
    keys of documents that not all of its queries belong to,
    and keys at its own positions                             with one

and no others. Scores are kept in units of log 2. Shapes: B rows, L positions, H query heads, G key heads, D width.
"""

import triton
import triton.language as tl

SIZES = ("length", "heads", "group")
HIDDEN = tl.constexpr(-1.0e30)
"""A score that weighs nothing beside any other; with infinity a row that has seen nothing yet would become NaN."""
LOG2_E = tl.constexpr(1.4426950408889634)
HIDE, SHOW = tl.constexpr(True), tl.constexpr(False)
"""Values of the flag that masks keys."""


@triton.jit
def _later(one, other):
    return tl.maximum(one, other)


@triton.jit
def _earlier(one, other):
    return tl.minimum(one, other)


@triton.jit(do_not_specialize=["length"])
def spans_kernel(document_ids, begins, ends, length, TILE: tl.constexpr):
    """Find for each position [B, L] the first and last position of its document; one program per row."""
    base = tl.program_id(0).to(tl.int64) * length
    tiles = tl.cdiv(length, TILE)
    carried = tl.full([], 0, tl.int32)
    for tile in range(tiles):
        at = tile * TILE + tl.arange(0, TILE)
        here = tl.load(document_ids + base + at, mask=at < length, other=0)
        before = tl.load(document_ids + base + at - 1, mask=(at > 0) & (at < length), other=0)
        first = tl.where((at > 0) & (here != before), at, 0).to(tl.int32)
        first = tl.maximum(tl.associative_scan(first, 0, _later), carried)
        tl.store(begins + base + at, first, mask=at < length)
        carried = tl.max(first, axis=0)
    carried = (length - 1).to(tl.int32)
    for step in range(tiles):
        at = (tiles - 1 - step) * TILE + tl.arange(0, TILE)
        here = tl.load(document_ids + base + at, mask=at < length, other=0)
        after = tl.load(document_ids + base + at + 1, mask=at + 1 < length, other=0)
        last = tl.where((at + 1 < length) & (here != after), at, length - 1).to(tl.int32)
        last = tl.minimum(tl.associative_scan(last, 0, _earlier, reverse=True), carried)
        tl.store(ends + base + at, last, mask=at < length)
        carried = tl.min(last, axis=0)


@triton.jit
def block_index(step, SIZE: tl.constexpr, first, count, second):
    """Return where a step's block begins: `count` steps go on from `first`, all later ones from `second`."""
    return tl.where(step < count, first + step * SIZE, second + (step - count) * SIZE)


@triton.jit
def key_ranges(begins, row, begin, length, M: tl.constexpr, N: tl.constexpr, DOCUMENTS: tl.constexpr):
    """Return for M queries from `begin` on where their first document begins and where the keys that all of them see
    do.
    """
    first, shared = 0, 0
    if DOCUMENTS:
        base = begins + row.to(tl.int64) * length
        first = tl.load(base + begin) // N * N
        shared = tl.minimum(tl.cdiv(tl.load(base + tl.minimum(begin + M, length) - 1), N) * N, begin)
    return first, shared


@triton.jit
def block(tensor, row, head, at, row_stride, stride, inside, D: tl.constexpr):
    """[.., D] of one row and head at positions `at`, zeros outside; 32 bits reach all positions of a row."""
    of_head = tensor + row.to(tl.int64) * row_stride + head * D
    return tl.load(of_head + at[:, None] * stride + tl.arange(0, D)[None, :], mask=inside[:, None], other=0.0)


@triton.jit
def softcap(scores, cap):
    """tanh(s / c) by an exponential, off by 1e-7 at most."""
    return 1.0 - 2.0 / (tl.exp2(scores * (2.0 * LOG2_E / cap)) + 1.0)


@triton.jit
def logits_of(products, scale, cap):
    """Products of queries and keys to scores in units of log 2."""
    if cap is None:
        return products * (scale * LOG2_E)
    else:
        return softcap(products * scale, cap) * (cap * LOG2_E)


@triton.jit
def _accumulate(
    query,
    total,
    highest,
    mixed,
    keys,
    values,
    row,
    head,
    at,
    start,
    steps,
    ranges,
    key_row,
    key_stride,
    value_row,
    value_stride,
    scale,
    cap,
    length,
    D: tl.constexpr,
    N: tl.constexpr,
    MASKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Take in N keys a step; see `place`."""
    for step in range(steps):
        places = block_index(step, N, *ranges) + tl.arange(0, N)
        key = block(keys, row, head, places, key_row, key_stride, places < length, D)
        scores = logits_of(tl.dot(query, tl.trans(key), input_precision=PRECISION), scale, cap)
        if MASKED:
            seen = (places[None, :] <= at[:, None]) & (places[None, :] >= start[:, None])
            scores = tl.where(seen, scores, HIDDEN)
        higher = tl.maximum(highest, tl.max(scores, axis=1))
        weights = tl.exp2(scores - higher[:, None])
        kept = tl.exp2(highest - higher)
        total = total * kept + tl.sum(weights, axis=1)
        value = block(values, row, head, places, value_row, value_stride, places < length, D)
        mixed = tl.dot(weights.to(value.dtype), value, acc=mixed * kept[:, None], input_precision=PRECISION)
        highest = higher
    return total, highest, mixed


@triton.jit(do_not_specialize=SIZES)
def outputs_kernel(
    queries,
    keys,
    values,
    begins,
    outputs,
    sums,
    query_row,
    query_stride,
    key_row,
    key_stride,
    value_row,
    value_stride,
    scale,
    cap,
    length,
    heads,
    group,
    D: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    DOCUMENTS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Outputs [B, L, H, D] and log-sum-exps [B, H, L] of M queries of one head; late queries, who see most, begin."""
    begin = (tl.num_programs(0) - 1 - tl.program_id(0)) * M
    row, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    at = begin + tl.arange(0, M)
    inside = at < length
    query = block(queries, row, head, at, query_row, query_stride, inside, D)

    start = tl.zeros([M], tl.int32)
    if DOCUMENTS:
        start = tl.load(begins + row.to(tl.int64) * length + at, mask=inside, other=0)
    first, shared = key_ranges(begins, row, begin, length, M, N, DOCUMENTS)
    some, own = (shared - first) // N, tl.cdiv(tl.minimum(begin + M, length) - begin, N)
    state = (tl.zeros([M], tl.float32), tl.full([M], HIDDEN, tl.float32), tl.zeros([M, D], tl.float32))
    others = (keys, values, row, head // group, at, start)
    settings = (key_row, key_stride, value_row, value_stride, scale, cap, length)
    plain = (shared, 0, shared)
    masked = (first, some, begin)
    state = _accumulate(query, *state, *others, (begin - shared) // N, plain, *settings, D, N, SHOW, PRECISION)
    total, highest, mixed = _accumulate(query, *state, *others, some + own, masked, *settings, D, N, HIDE, PRECISION)

    tl.store(sums + tl.program_id(1).to(tl.int64) * length + at, highest + tl.log2(total), mask=inside)
    mixed = mixed / total[:, None]
    places = (row.to(tl.int64) * length + at)[:, None] * (heads * D) + head * D + tl.arange(0, D)[None, :]
    tl.store(outputs + places, mixed.to(outputs.dtype.element_ty), mask=inside[:, None])
