"""Triton kernel of the recurrence's gradients, a chunk at a time, given S before it and dS after it.

With A the scores, dA_ij = dO_i . v_j, and decays made of the factors of `triton_forward`:

    dv_j = sum_i A_ij dO_i + e^{G_C - G_j} k_j dS
    dq_i = sum_j dA_ij e^{G_i - G_j} k_j + e^{G_i} S dO_i
    dk_j = sum_i dA_ij e^{G_i - G_j} q_i + e^{G_C - G_j} dS v_j

dv has the form of the outputs in reverse, and is made by their kernel. g needs no derivative of its own: dg_t is the
sum of q_m dq_m - k_m dk_m over m >= t, of which all that is beyond the chunk is sum_V S dS at its end. So nothing goes
from chunk to chunk but the states, and no error gathers over a long row.

In one level a position of an upper half has only pairs that make dq, one of a lower half only pairs that make dk. So a
level of both is one product: dA and its mirror image make one symmetric matrix, and k of the lower halves and q of the
upper ones what it is multiplied with.
"""

import triton
import triton.language as tl

from lilliput.ops.gla.triton_forward import (
    SIZES,
    decay_over,
    load_decay,
    load_span,
    of_chunk,
    of_program,
    vectors,
)


@triton.jit
def sum_on(terms, C: tl.constexpr, PRECISION: tl.constexpr):
    """Each position's sum of itself and all that follow in the chunk, [C, K], to the bits of fp32.

    Less would not do: where a document ends, what the state adds to dg cancels, and one product of tf32 left an error
    of 6e-3 of dg (fp16, H200, 2026-11-24). In bf16 0 and 1 are exact, and three parts hold the 24 bits of fp32.
    """
    later = tl.arange(0, C)[None, :] >= tl.arange(0, C)[:, None]
    if PRECISION == "ieee":
        sums = tl.dot(tl.where(later, 1.0, 0.0), terms, input_precision=PRECISION)
    else:
        chosen = tl.where(later, tl.full([1, 1], 1.0, tl.bfloat16), 0.0)
        high = terms.to(tl.bfloat16)
        terms -= high.to(tl.float32)
        middle = terms.to(tl.bfloat16)
        terms -= middle.to(tl.float32)
        sums = tl.dot(chosen, terms.to(tl.bfloat16))
        sums = tl.dot(chosen, middle, acc=sums)
        sums = tl.dot(chosen, high, acc=sums)
    return sums


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
    number, tile = of_program(K // K_TILE)
    first, head, inside = of_chunk(number, positions, heads, C)
    channels = tile * K_TILE + tl.arange(0, K_TILE)
    steps = tl.arange(0, C)
    narrow = queries.dtype.element_ty

    query = tl.load(vectors(queries, first, head, heads * K, channels, K, C), mask=inside, other=0.0)
    key = tl.load(vectors(keys, first, head, heads * K, channels, K, C), mask=inside, other=0.0)
    decay = load_decay(vectors(log_decay, first, head, heads * K, channels, K, C), inside, EXACT)
    grad_scores, mirrored = tl.zeros([C, C], tl.float32), tl.zeros([C, C], tl.float32)
    grad_query, grad_key = tl.zeros([C, K_TILE], tl.float32), tl.zeros([C, K_TILE], tl.float32)
    beyond = tl.zeros([K_TILE], tl.float32)
    for part in range(V // V_TILE):
        columns = part * V_TILE + tl.arange(0, V_TILE)
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
    own, other = steps[:, None], steps[None, :]
    itself = tl.sum(tl.where(own == other, grad_scores, 0.0), axis=1, keep_dims=True) * scale
    # Rounded here and not in every level: they are the same numbers in half of the registers.
    both = (tl.where(own > other, grad_scores, mirrored) * scale).to(narrow)
    beyond *= tl.exp2(tl.sum(decay, axis=0))
    grad_key *= decay_over(load_span(spans, LEVELS, C), decay, EXACT)
    beyond += tl.sum(key.to(tl.float32) * grad_key, axis=0)
    grad_query *= decay_over(load_span(spans, LEVELS + 1, C), decay, EXACT) * scale

    grad_query += itself * key.to(tl.float32)
    grad_key += itself * query.to(tl.float32)
    for level in range(LEVELS):
        factor = decay_over(load_span(spans, level, C), decay, EXACT)
        half = own >> level
        upper = half & 1
        lower = 1 - upper
        near = factor.to(narrow)
        # Two products, although one of them is zero: a choice would take numbers of 16 bits out of their registers.
        pulled = query * (near * upper.to(narrow)) + key * (near * lower.to(narrow))
        pairs = tl.where((other >> level) == (half ^ 1), both, 0.0)
        found = factor * tl.dot(pairs, pulled, input_precision=PRECISION)
        grad_query += found * upper.to(tl.float32)
        grad_key += found * lower.to(tl.float32)

    tl.store(vectors(grad_queries, first, head, heads * K, channels, K, C), grad_query.to(narrow), mask=inside)
    tl.store(vectors(grad_keys, first, head, heads * K, channels, K, C), grad_key.to(narrow), mask=inside)
    slopes = sum_on(query.to(tl.float32) * grad_query - key.to(tl.float32) * grad_key, C, PRECISION) + beyond[None, :]
    tl.store(
        vectors(grad_decay, first, head, heads * K, channels, K, C), slopes.to(grad_decay.dtype.element_ty), mask=inside
    )
