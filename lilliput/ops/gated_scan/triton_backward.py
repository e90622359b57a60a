"""Triton kernel of the recurrence's gradients, a chunk at a time, given S before it and dS after it.

With A the scores, dA_ij = dO_i . v_j, and decays made of the factors of `triton_forward`:

    dv_j = sum_i A_ij dO_i + e^{G_C - G_j} k_j dS
    dq_i = sum_j dA_ij e^{G_i - G_j} k_j + e^{G_i} S dO_i
    dk_j = sum_i dA_ij e^{G_i - G_j} q_i + e^{G_C - G_j} dS v_j

dv has the form of the outputs in reverse, and is made by their kernel. g needs no derivative of its own: dg_t is the
sum of q_m dq_m - k_m dk_m over m >= t, of which all that is beyond the chunk is sum_V S dS at its end. So nothing goes
from chunk to chunk but the states, and no error gathers over a long row.
"""

import triton
import triton.language as tl

from lilliput.ops.gated_scan.triton_forward import (
    SIZES,
    decay_over,
    load_decay,
    load_span,
    of_chunk,
    pairs_of,
    vectors,
)


@triton.jit(do_not_specialize=SIZES)
def gradients_kernel(
    queries,
    keys,
    values,
    log_decay,
    spans,
    entering,
    leaving,
    grad_outputs,
    grad_queries,
    grad_keys,
    grad_decay,
    value_stride,
    scale,
    positions,
    heads,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    LEVELS: tl.constexpr,
    K_TILE: tl.constexpr,
    V_TILE: tl.constexpr,
    EXACT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """dq, dk and dg of one chunk and some of its channels; `entering` holds S before it, `leaving` dS after it."""
    first, head, inside = of_chunk(positions, heads, C)
    channels = tl.program_id(1) * K_TILE + tl.arange(0, K_TILE)
    steps = tl.arange(0, C)
    number = tl.program_id(0).to(tl.int64)
    narrow = queries.dtype.element_ty

    grad_scores, mirrored = tl.zeros([C, C], tl.float32), tl.zeros([C, C], tl.float32)
    grad_query, grad_key = tl.zeros([C, K_TILE], tl.float32), tl.zeros([C, K_TILE], tl.float32)
    beyond = tl.zeros([K_TILE], tl.float32)
    for tile in range(V // V_TILE):
        columns = tile * V_TILE + tl.arange(0, V_TILE)
        entry = channels[:, None] * V + columns[None, :]
        value = tl.load(vectors(values, first, head, value_stride, columns, V, C), mask=inside, other=0.0)
        grad_output = tl.load(vectors(grad_outputs, first, head, heads * V, columns, V, C), mask=inside, other=0.0)
        before, grad_after = tl.load(entering + number * K * V + entry), tl.load(leaving + number * K * V + entry)
        grad_scores = tl.dot(grad_output, tl.trans(value), acc=grad_scores, input_precision=PRECISION)
        # A product of its own: to transpose the other would move it through shared memory two bytes at a time.
        mirrored = tl.dot(value, tl.trans(grad_output), acc=mirrored, input_precision=PRECISION)
        grad_query = tl.dot(grad_output, tl.trans(before), acc=grad_query, input_precision=PRECISION)
        grad_key = tl.dot(value, tl.trans(grad_after), acc=grad_key, input_precision=PRECISION)
        beyond += tl.sum(before.to(tl.float32) * grad_after.to(tl.float32), axis=1)
    query = tl.load(vectors(queries, first, head, heads * K, channels, K, C), mask=inside, other=0.0)
    key = tl.load(vectors(keys, first, head, heads * K, channels, K, C), mask=inside, other=0.0)
    decay = load_decay(vectors(log_decay, first, head, heads * K, channels, K, C), inside, EXACT)
    beyond *= tl.exp2(tl.sum(decay, axis=0))
    grad_key *= decay_over(load_span(spans, LEVELS, C), decay, EXACT)
    beyond += tl.sum(key.to(tl.float32) * grad_key, axis=0)
    grad_query *= decay_over(load_span(spans, LEVELS + 1, C), decay, EXACT) * scale

    grad_scores, mirrored = grad_scores * scale, mirrored * scale
    itself = tl.sum(tl.where(steps[:, None] == steps[None, :], grad_scores, 0.0), axis=1, keep_dims=True)
    grad_query += itself * key.to(tl.float32)
    grad_key += itself * query.to(tl.float32)
    # Rounded here and not in every level: they are the same numbers in half of the registers.
    grad_scores, mirrored = grad_scores.to(narrow), mirrored.to(narrow)
    for level in range(LEVELS):
        factor = decay_over(load_span(spans, level, C), decay, EXACT)
        near = factor.to(narrow)
        earlier = tl.where(pairs_of(level, steps[:, None], steps[None, :]), grad_scores, 0.0)
        later = tl.where(pairs_of(level, steps[None, :], steps[:, None]), mirrored, 0.0)
        grad_query += factor * tl.dot(earlier, key * near, input_precision=PRECISION)
        grad_key += factor * tl.dot(later, query * near, input_precision=PRECISION)

    tl.store(vectors(grad_queries, first, head, heads * K, channels, K, C), grad_query.to(narrow), mask=inside)
    tl.store(vectors(grad_keys, first, head, heads * K, channels, K, C), grad_key.to(narrow), mask=inside)
    terms = query.to(tl.float32) * grad_query - key.to(tl.float32) * grad_key
    following = tl.where(steps[None, :] >= steps[:, None], 1.0, 0.0)
    slopes = tl.dot(following, terms, input_precision=PRECISION) + beyond[None, :]
    tl.store(
        vectors(grad_decay, first, head, heads * K, channels, K, C), slopes.to(grad_decay.dtype.element_ty), mask=inside
    )
