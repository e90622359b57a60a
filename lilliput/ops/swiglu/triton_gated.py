"""Triton kernels of the product of a gate and what it lets through, ROWS positions and COLUMNS channels at a time.

With s = sigmoid(g), a = g s, a' = s + a (1 - s), and the gradient d of the activation:

    square     activation    gradient of the gate    of up
    none       a u           d u a'                  d a
    silu       a^2 u         d u 2 a a'              d a^2
    product    (a u)^2       2 d a u u a'            2 d a u a
    relu       r^2 u         d u 2 r                 d r^2        with r = relu(g)

Everything is fp32 inside and rounded once. Shapes: the projection is [positions, 2 INNER], gates first.
"""

import triton
import triton.language as tl

from lilliput.ops.hgrn2.triton_activations import sigmoid


@triton.jit
def places(total, INNER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Positions [ROWS, 1], channels [1, COLUMNS] of this program, and which of both [ROWS, COLUMNS] there are."""
    across: tl.constexpr = (INNER + COLUMNS - 1) // COLUMNS
    at = (tl.program_id(0) // across).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    channel = tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    return at, channel, (at < total) & (channel < INNER)


@triton.jit
def load_both(projected, at, channel, inside, INNER: tl.constexpr):
    """Gates and what they let through, in fp32."""
    pointers = projected + at * (2 * INNER) + channel
    gate = tl.load(pointers, mask=inside, other=0.0).to(tl.float32)
    return gate, tl.load(pointers + INNER, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def activate(gate, SQUARE: tl.constexpr):
    """The gate behind its activation, and the slope of that; not a number stays so."""
    if SQUARE == "relu":
        positive = tl.where(gate < 0.0, 0.0, gate)
        return positive, tl.where(gate < 0.0, 0.0, 1.0)
    s = sigmoid(gate)
    silu = gate * s
    return silu, s + silu * (1.0 - s)


@triton.jit
def product_of(opening, up, SQUARE: tl.constexpr):
    if SQUARE is None:
        return opening * up
    if SQUARE == "product":
        return opening * up * (opening * up)
    return opening * opening * up


@triton.jit(do_not_specialize=["total"])
def gated_kernel(
    projected,
    activation,
    total,
    INNER: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SQUARE: tl.constexpr,
):
    """The activation [total, INNER]."""
    at, channel, inside = places(total, INNER, ROWS, COLUMNS)
    gate, up = load_both(projected, at, channel, inside, INNER)
    opening, _ = activate(gate, SQUARE)
    made = product_of(opening, up, SQUARE)
    tl.store(activation + at * INNER + channel, made.to(activation.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["total"])
def gated_gradients_kernel(
    projected,
    between,
    grad_projected,
    total,
    INNER: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SQUARE: tl.constexpr,
):
    """Gradients of gates and what they let through; `between` [total, INNER] is the activation's, and then itself."""
    at, channel, inside = places(total, INNER, ROWS, COLUMNS)
    gate, up = load_both(projected, at, channel, inside, INNER)
    d = tl.load(between + at * INNER + channel, mask=inside, other=0.0).to(tl.float32)
    opening, slope = activate(gate, SQUARE)
    made = product_of(opening, up, SQUARE)
    tl.store(between + at * INNER + channel, made.to(between.dtype.element_ty), mask=inside)
    if SQUARE is None:
        of_opening, of_up = d * up, d * opening
    elif SQUARE == "product":
        d *= 2.0 * opening * up
        of_opening, of_up = d * up, d * opening
    else:
        of_opening, of_up = d * up * (2.0 * opening), d * (opening * opening)
    pointers = grad_projected + at * (2 * INNER) + channel
    tl.store(pointers, (of_opening * slope).to(grad_projected.dtype.element_ty), mask=inside)
    tl.store(pointers + INNER, of_up.to(grad_projected.dtype.element_ty), mask=inside)
