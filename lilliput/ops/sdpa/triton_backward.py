"""Triton kernels of attention's gradients (FlashAttention-2, arXiv 2307.08691, algorithm 2), without atomic additions.

With weights P = exp(s - lse), dP_ij = dO_i . v_j and delta_i = O_i . dO_i:

    dS = P * (dP - delta) [* (1 - tanh^2) under a cap]    dQ = dS K    dK = dS^T Q    dV = P^T dO

One kernel visits keys for a block of queries and makes their deltas and dQ, the next one visits queries for a block of
keys and makes dK and dV of a whole group of heads: every sum has one owner and one order, so that two runs are equal to
the bit.
"""

import triton
import triton.language as tl

from lilliput.ops.sdpa.triton_forward import HIDE, LOG2_E, SHOW, SIZES, block, block_index, key_ranges, softcap


@triton.jit
def weights_of(products, sums, scale, cap):
    """Products of queries and keys to weights, and the slope of what became of the products (1 without a cap)."""
    if cap is None:
        return tl.exp2(products * (scale * LOG2_E) - sums), 1.0
    else:
        bent = softcap(products * scale, cap)
        return tl.exp2(bent * (cap * LOG2_E) - sums), 1.0 - bent * bent


@triton.jit
def _accumulate_dq(
    query,
    grad_output,
    sums,
    delta,
    grad_query,
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
    for step in range(steps):
        places = block_index(step, N, *ranges) + tl.arange(0, N)
        key = block(keys, row, head, places, key_row, key_stride, places < length, D)
        value = block(values, row, head, places, value_row, value_stride, places < length, D)
        products = tl.dot(query, tl.trans(key), input_precision=PRECISION)
        weights, slope = weights_of(products, sums[:, None], scale, cap)
        if MASKED:
            seen = (places[None, :] <= at[:, None]) & (places[None, :] >= start[:, None])
            weights = tl.where(seen, weights, 0.0)
        grad_weights = tl.dot(grad_output, tl.trans(value), input_precision=PRECISION)
        grad_scores = weights * (grad_weights - delta[:, None]) * slope
        grad_query = tl.dot(grad_scores.to(key.dtype), key, acc=grad_query, input_precision=PRECISION)
    return grad_query


@triton.jit(do_not_specialize=SIZES)
def dq_kernel(
    queries,
    keys,
    values,
    begins,
    outputs,
    grad_outputs,
    sums,
    deltas,
    grad_queries,
    grad_stride,
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
    """dQ [B, L, H, D] of M queries of one head, positions `grad_stride` apart, and their deltas [B, H, L]."""
    begin = (tl.num_programs(0) - 1 - tl.program_id(0)) * M
    row, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    at = begin + tl.arange(0, M)
    inside = at < length
    query = block(queries, row, head, at, query_row, query_stride, inside, D)
    grad_output = block(grad_outputs, row, head, at, length * heads * D, heads * D, inside, D)
    output = block(outputs, row, head, at, length * heads * D, heads * D, inside, D)
    of_head = tl.program_id(1).to(tl.int64) * length
    total = tl.load(sums + of_head + at, mask=inside, other=0.0)
    delta = tl.sum(output.to(tl.float32) * grad_output.to(tl.float32), axis=1)
    tl.store(deltas + of_head + at, delta, mask=inside)

    start = tl.zeros([M], tl.int32)
    if DOCUMENTS:
        start = tl.load(begins + row.to(tl.int64) * length + at, mask=inside, other=0)
    first, shared = key_ranges(begins, row, begin, length, M, N, DOCUMENTS)
    some, own = (shared - first) // N, tl.cdiv(tl.minimum(begin + M, length) - begin, N)
    grad = tl.zeros([M, D], tl.float32)
    mine = (query, grad_output, total, delta)
    others = (keys, values, row, head // group, at, start)
    settings = (key_row, key_stride, value_row, value_stride, scale, cap, length)
    plain = (shared, 0, shared)
    masked = (first, some, begin)
    grad = _accumulate_dq(*mine, grad, *others, (begin - shared) // N, plain, *settings, D, N, SHOW, PRECISION)
    grad = _accumulate_dq(*mine, grad, *others, some + own, masked, *settings, D, N, HIDE, PRECISION)

    places = (row.to(tl.int64) * length + at)[:, None] * grad_stride + head * D + tl.arange(0, D)[None, :]
    tl.store(grad_queries + places, (grad * scale).to(grad_queries.dtype.element_ty), mask=inside[:, None])


@triton.jit
def _accumulate_dkdv(
    key,
    value,
    grad_key,
    grad_value,
    queries,
    grad_outputs,
    sums,
    deltas,
    begins,
    row,
    head,
    heads,
    places,
    steps,
    ranges,
    row_stride,
    stride,
    scale,
    cap,
    length,
    D: tl.constexpr,
    M: tl.constexpr,
    MASKED: tl.constexpr,
    DOCUMENTS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    of_head = (row.to(tl.int64) * heads + head) * length
    for step in range(steps):
        at = block_index(step, M, *ranges) + tl.arange(0, M)
        inside = at < length
        query = block(queries, row, head, at, row_stride, stride, inside, D)
        grad_output = block(grad_outputs, row, head, at, length * heads * D, heads * D, inside, D)
        total = tl.load(sums + of_head + at, mask=inside, other=0.0)
        delta = tl.load(deltas + of_head + at, mask=inside, other=0.0)
        products = tl.dot(key, tl.trans(query), input_precision=PRECISION)  # [N, M]
        weights, slope = weights_of(products, total[None, :], scale, cap)
        if MASKED:
            seen = (places[:, None] <= at[None, :]) & inside[None, :]
            if DOCUMENTS:
                start = tl.load(begins + row.to(tl.int64) * length + at, mask=inside, other=0)
                seen = seen & (places[:, None] >= start[None, :])
            weights = tl.where(seen, weights, 0.0)
        grad_value = tl.dot(weights.to(value.dtype), grad_output, acc=grad_value, input_precision=PRECISION)
        grad_weights = tl.dot(value, tl.trans(grad_output), input_precision=PRECISION)
        grad_scores = weights * (grad_weights - delta[None, :]) * slope
        grad_key = tl.dot(grad_scores.to(query.dtype), query, acc=grad_key, input_precision=PRECISION)
    return grad_key, grad_value


@triton.jit(do_not_specialize=SIZES)
def dkdv_kernel(
    queries,
    keys,
    values,
    begins,
    ends,
    grad_outputs,
    sums,
    deltas,
    grad_keys,
    grad_values,
    grad_stride,
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
    """dK and dV [B, L, G, D] of N keys of one key head, over all query heads that read it, positions apart alike."""
    begin = tl.program_id(0) * N  # early keys, which most queries see, begin
    shared_heads = heads // group
    row, shared_head = tl.program_id(1) // shared_heads, tl.program_id(1) % shared_heads
    places = begin + tl.arange(0, N)
    inside = places < length
    key = block(keys, row, shared_head, places, key_row, key_stride, inside, D)
    value = block(values, row, shared_head, places, value_row, value_stride, inside, D)

    # Queries at the keys' own positions need a mask, and those in documents that only the last of these keys belong to;
    # between them are those that see all of these keys.
    aligned = begin // M * M
    own = tl.minimum(tl.cdiv(begin + N, M), tl.cdiv(length, M)) * M
    whole, end = length // M * M, length
    if DOCUMENTS:
        base = ends + row.to(tl.int64) * length
        whole = (tl.load(base + begin) + 1) // M * M
        end = tl.load(base + tl.minimum(begin + N, length) - 1) + 1
    whole = tl.maximum(whole, own)
    beside, beyond = (own - aligned) // M, tl.maximum(tl.cdiv(end - whole, M), 0)
    grad_key, grad_value = tl.zeros([N, D], tl.float32), tl.zeros([N, D], tl.float32)
    settings = (query_row, query_stride, scale, cap, length)
    plain = (own, 0, own)
    masked = (aligned, beside, whole)
    for member in range(group):
        head = shared_head * group + member
        others = (queries, grad_outputs, sums, deltas, begins, row, head, heads, places)
        grad_key, grad_value = _accumulate_dkdv(
            key,
            value,
            grad_key,
            grad_value,
            *others,
            (whole - own) // M,
            plain,
            *settings,
            D,
            M,
            SHOW,
            DOCUMENTS,
            PRECISION,
        )
        grad_key, grad_value = _accumulate_dkdv(
            key,
            value,
            grad_key,
            grad_value,
            *others,
            beside + beyond,
            masked,
            *settings,
            D,
            M,
            HIDE,
            DOCUMENTS,
            PRECISION,
        )

    stored = (row.to(tl.int64) * length + places)[:, None] * grad_stride
    stored += shared_head * D + tl.arange(0, D)[None, :]
    tl.store(grad_keys + stored, (grad_key * scale).to(grad_keys.dtype.element_ty), mask=inside[:, None])
    tl.store(grad_values + stored, grad_value.to(grad_values.dtype.element_ty), mask=inside[:, None])
