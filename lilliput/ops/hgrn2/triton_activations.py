"""Triton kernels between HGRN2's projection and its scan, P positions of one head at a time.

Channels lie in two halves that turn together (see `triton_heads`). With s = sigmoid:

    q = turn(z_q s(z_q))    k = turn(s(-z))    log f = log s(z), RESET where a document begins

Shapes: P positions of a program, H heads, K channels of a head.
"""

import triton
import triton.language as tl

from lilliput.ops.attention.triton_heads import halves, load_turns, store_halves

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def begins(document_ids, at, length, inside):
    """Return whether positions begin a document other than the row's first, [P]."""
    here = tl.load(document_ids + at, mask=inside, other=0)
    before = tl.load(document_ids + at - 1, mask=inside & (at % length > 0), other=0)
    return (at % length > 0) & (here != before)


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(x * -LOG2_E))


@triton.jit
def log_sigmoid(x):
    """Natural log of the sigmoid; where e^-|x| is small, log(1 + e) would lose it in fp32."""
    small = tl.exp2(tl.abs(x) * -LOG2_E)
    series = small * (1.0 - small * (0.5 - small * 0.33333334))
    return tl.minimum(x, 0.0) - tl.where(small < 0.01, series, tl.log(1.0 + small))


@triton.jit
def load_gates(projected, bias, at, head, inside, H: tl.constexpr, K: tl.constexpr):
    """Both halves [P, K/2] of a head's forget gates before their sigmoid."""
    one, two = halves(projected, at * (3 * H) + H + head, inside, K)
    if bias is not None:
        half = head * K + tl.arange(0, K // 2)
        one += tl.load(bias + half)[None, :]
        two += tl.load(bias + K // 2 + half)[None, :]
    return one, two


@triton.jit
def stored_decay(log_decay, reset, RESET: tl.constexpr, NARROW: tl.constexpr):
    """Return decays as the scan reads them: in fp16 powers of two, in fp32 natural."""
    log_decay = tl.where(reset[:, None], RESET, log_decay)
    return tl.maximum(log_decay * LOG2_E, -30000.0) if NARROW else log_decay


@triton.jit(do_not_specialize=["total", "length"])
def gates_kernel(
    projected,
    bias,
    document_ids,
    table,
    queries,
    keys,
    decays,
    total,
    length,
    H: tl.constexpr,
    K: tl.constexpr,
    P: tl.constexpr,
    RESET: tl.constexpr,
    TURN: tl.constexpr,
):
    """q, k and decays [.., H, K] of P of `total` positions, which lie in rows of `length`, for one head."""
    at, head = tl.program_id(0).to(tl.int64) * P + tl.arange(0, P), tl.program_id(1)
    inside = at < total
    one, two = halves(projected, at * (3 * H) + head, inside, K)
    one, two = one * sigmoid(one), two * sigmoid(two)
    three, four = load_gates(projected, bias, at, head, inside, H, K)
    reset = tl.zeros([P], tl.int1)
    if document_ids is not None:
        reset = begins(document_ids, at, length, inside)
    narrow: tl.constexpr = decays.dtype.element_ty == tl.float16
    decay_one = stored_decay(log_sigmoid(three), reset, RESET, narrow)
    decay_two = stored_decay(log_sigmoid(four), reset, RESET, narrow)
    store_halves(decays, at * H + head, inside, decay_one, decay_two, K)
    three, four = sigmoid(-three), sigmoid(-four)
    if TURN:
        cos, sin = load_turns(table, at, length, inside, K)
        one, two = one * cos - two * sin, two * cos + one * sin
        three, four = three * cos - four * sin, four * cos + three * sin
    store_halves(queries, at * H + head, inside, one, two, K)
    store_halves(keys, at * H + head, inside, three, four, K)


@triton.jit
def silu_slope(x):
    """d (x s(x)) / dx."""
    s = sigmoid(x)
    return s * (1.0 + x * (1.0 - s))


@triton.jit(do_not_specialize=["total", "length"])
def gradients_kernel(
    projected,
    bias,
    document_ids,
    table,
    grad_queries,
    grad_keys,
    grad_decays,
    grad_projected,
    total,
    length,
    H: tl.constexpr,
    K: tl.constexpr,
    P: tl.constexpr,
    TURN: tl.constexpr,
):
    """Gradients of queries and forget gates before their activations, into their places [.., 3 H, K]."""
    at, head = tl.program_id(0).to(tl.int64) * P + tl.arange(0, P), tl.program_id(1)
    inside = at < total
    one, two = halves(grad_queries, at * H + head, inside, K)
    three, four = halves(grad_keys, at * H + head, inside, K)
    if TURN:
        cos, sin = load_turns(table, at, length, inside, K)
        one, two = one * cos + two * sin, two * cos - one * sin
        three, four = three * cos + four * sin, four * cos - three * sin
    x, y = halves(projected, at * (3 * H) + head, inside, K)
    store_halves(grad_projected, at * (3 * H) + head, inside, one * silu_slope(x), two * silu_slope(y), K)
    x, y = load_gates(projected, bias, at, head, inside, H, K)
    x, y = sigmoid(-x), sigmoid(-y)  # k = 1 - f; dk/dz = -k f, and d log f / dz = k
    one, two = halves(grad_decays, at * H + head, inside, K)
    if document_ids is not None:
        reset = begins(document_ids, at, length, inside)
        one, two = tl.where(reset[:, None], 0.0, one), tl.where(reset[:, None], 0.0, two)
    one, two = x * (one - three * (1.0 - x)), y * (two - four * (1.0 - y))
    store_halves(grad_projected, at * (3 * H) + H + head, inside, one, two, K)
