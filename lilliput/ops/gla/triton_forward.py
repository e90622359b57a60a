"""Triton kernels of the recurrence: the states that chunks receive, then every chunk by itself.

Inside a chunk of C positions a score is A_ij = sum_c q_ic k_jc e^{g_{j+1} + ... + g_i} for j <= i, and as a product of
e^{G_i} and e^{-G_j}, with running sums G, it would overflow. So pairs are told apart by the highest bit in which i and
j differ: those of level l lie in the two halves of one block of 2^{l+1} positions, and their decay is that from j to
the middle of the block times that from the middle to i. No factor is ever above 1, each belongs to one position, and a
level is one product of matrices: log2 C exponentials for a position and channel, where pairs would need C / 2. The
sums of log decays are products, too, with a matrix of 0 and 1, over no more positions than they are about.

Shapes: C positions of a chunk, K key channels, V value channels, N chunks of a row.
"""

import triton
import triton.language as tl

SIZES = ("positions", "heads")
"""Arguments whose values compile nothing again."""


@triton.jit
def of_program(TILES: tl.constexpr):
    """The program's chunk or lane, in 64 bits, and its tile: those of one chunk run together, and share reads."""
    return (tl.program_id(0) // TILES).to(tl.int64), tl.program_id(0) % TILES


@triton.jit
def of_chunk(number, positions, heads, C: tl.constexpr):
    """The chunk's first position among all rows', its head, and which of its positions are in the row [C, 1]."""
    chunks = tl.cdiv(positions, C)
    lane, n = (number // chunks).to(tl.int32), (number % chunks).to(tl.int32)
    first = (lane // heads).to(tl.int64) * positions + n * C
    return first, lane % heads, n * C + tl.arange(0, C)[:, None] < positions


@triton.jit
def vectors(tensor, first, head, stride, columns, D: tl.constexpr, C: tl.constexpr):
    """Pointers [C, .] to some columns of a head's vectors of D numbers, a stride apart, from position `first` on."""
    return tensor + first * stride + head * D + (tl.arange(0, C)[:, None] * stride + columns[None, :])


@triton.jit
def load_decay(pointers, inside, EXACT: tl.constexpr):
    """Log decays in powers of two, as `decay_over` sums them; what is below e^-20,000 empties a state all the same.

    Those in fp16 are powers of two already.
    """
    decay = tl.load(pointers, mask=inside, other=0.0)
    if pointers.dtype.element_ty == tl.float16:
        decay = decay.to(tl.float32)
    else:
        decay = tl.maximum(decay * 1.4426950408889634, -30000.0)
        if not EXACT:
            decay = decay.to(tl.float16).to(tl.float32)
    return decay


@triton.jit
def load_span(spans, number, C: tl.constexpr):
    """A matrix [C, C] of `spans`: row i is 1 at the positions whose decay position i is about."""
    return tl.load(spans + number * C * C + (tl.arange(0, C)[:, None] * C + tl.arange(0, C)[None, :]))


@triton.jit
def decay_over(span, decay, EXACT: tl.constexpr):
    """Each position's decay over its row of a span; [C, C], [C, K] -> [C, K].

    The 11 bits of fp16 do for operands of 16 bits, whose products round by more; two such parts hold 22 bits.
    """
    high = decay.to(tl.float16)
    sums = tl.dot(span, high)
    if EXACT:
        sums = tl.dot(span, (decay - high.to(tl.float32)).to(tl.float16), acc=sums)
    return tl.exp2(sums)


@triton.jit
def pairs_of(level, i, j):
    """Return whether j lies in the lower and i in the upper half of one block of that level."""
    half = i >> level
    return (j >> level) == tl.where(half % 2 == 1, half - 1, -1)


@triton.jit(do_not_specialize=SIZES)
def states_kernel(
    keys,
    values,
    log_decay,
    spans,
    before,
    received,
    after,
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
    REVERSE: tl.constexpr,
    EXACT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """S before every chunk, and after the last; in reverse, with q and dO for k and v, dS after every chunk.

    The program's state is transposed: channels are then the columns of all products, and what a chunk keeps of each
    comes as a product of ones, where a sum over positions would go from warp to warp.
    """
    lane, tile = of_program((K // K_TILE) * (V // V_TILE))
    head = (lane % heads).to(tl.int32)
    channels = tile % (K // K_TILE) * K_TILE + tl.arange(0, K_TILE)
    columns = tile // (K // K_TILE) * V_TILE + tl.arange(0, V_TILE)
    entry = channels[None, :] * V + columns[:, None]
    chunks = tl.cdiv(positions, C)
    span = load_span(spans, LEVELS + 1 if REVERSE else LEVELS, C)
    everything = tl.full([V_TILE, C], 1.0, tl.float16)

    state = tl.zeros([V_TILE, K_TILE], tl.float32)
    if before is not None:
        state += tl.load(before + lane * K * V + entry)
    for step in range(chunks):
        n = chunks - 1 - step if REVERSE else step
        tl.store(received + (lane * chunks + n) * K * V + entry, state.to(received.dtype.element_ty))
        first = lane // heads * positions + n * C
        inside = n * C + tl.arange(0, C)[:, None] < positions
        key = tl.load(vectors(keys, first, head, heads * K, channels, K, C), mask=inside, other=0.0)
        value = tl.load(vectors(values, first, head, value_stride, columns, V, C), mask=inside, other=0.0)
        decay = load_decay(vectors(log_decay, first, head, heads * K, channels, K, C), inside, EXACT)
        written = (key.to(tl.float32) * decay_over(span, decay, EXACT) * scale).to(value.dtype)
        kept = state * decay_over(everything, decay, EXACT)
        state = tl.dot(tl.trans(value), written, acc=kept, input_precision=PRECISION)
    if after is not None:
        tl.store(after + lane * K * V + entry, state)


@triton.jit(do_not_specialize=SIZES)
def outputs_kernel(
    queries,
    keys,
    values,
    log_decay,
    spans,
    received,
    scores,
    outputs,
    value_stride,
    output_stride,
    scale,
    positions,
    heads,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    LEVELS: tl.constexpr,
    K_TILE: tl.constexpr,
    V_TILE: tl.constexpr,
    REVERSE: tl.constexpr,
    EXACT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """o of one chunk, and its scores; in reverse, with dO for v and dS after the chunk for S before it, dv."""
    number, tile = of_program(V // V_TILE)
    first, head, inside = of_chunk(number, positions, heads, C)
    steps, columns = tl.arange(0, C), tile * V_TILE + tl.arange(0, V_TILE)
    narrow = outputs.dtype.element_ty
    score = scores + number * C * C + (steps[:, None] * C + steps[None, :])

    if REVERSE:
        weights = tl.trans(tl.load(score))
    else:
        sums = tl.zeros([C, C], tl.float32)
        for part in range(K // K_TILE):
            channels = part * K_TILE + tl.arange(0, K_TILE)
            query = tl.load(vectors(queries, first, head, heads * K, channels, K, C), mask=inside, other=0.0)
            key = tl.load(vectors(keys, first, head, heads * K, channels, K, C), mask=inside, other=0.0)
            decay = load_decay(vectors(log_decay, first, head, heads * K, channels, K, C), inside, EXACT)
            for level in range(LEVELS):
                factor = decay_over(load_span(spans, level, C), decay, EXACT).to(narrow)
                products = tl.dot(query * factor, tl.trans(key * factor), input_precision=PRECISION)
                sums += tl.where(pairs_of(level, steps[:, None], steps[None, :]), products, 0.0)
            itself = tl.sum(query.to(tl.float32) * key.to(tl.float32), axis=1, keep_dims=True)
            sums += tl.where(steps[:, None] == steps[None, :], itself, 0.0)
        weights = (sums * scale).to(narrow)
        tl.store(score, weights)

    value = tl.load(vectors(values, first, head, value_stride, columns, V, C), mask=inside, other=0.0)
    output = tl.dot(weights, value, input_precision=PRECISION)
    # Loaded ahead, states would take the room of a third program; spans, above, are small.
    for part in tl.range(K // K_TILE, num_stages=1):  # pyright: ignore[reportGeneralTypeIssues]
        channels = part * K_TILE + tl.arange(0, K_TILE)
        decay = load_decay(vectors(log_decay, first, head, heads * K, channels, K, C), inside, EXACT)
        state = tl.load(received + number * K * V + (channels[:, None] * V + columns[None, :]))
        if REVERSE:
            key = tl.load(vectors(keys, first, head, heads * K, channels, K, C), mask=inside, other=0.0)
            side = key.to(tl.float32) * decay_over(load_span(spans, LEVELS, C), decay, EXACT)
        else:
            query = tl.load(vectors(queries, first, head, heads * K, channels, K, C), mask=inside, other=0.0)
            side = query.to(tl.float32) * scale * decay_over(load_span(spans, LEVELS + 1, C), decay, EXACT)
        output = tl.dot(side.to(narrow), state, acc=output, input_precision=PRECISION)
    tl.store(vectors(outputs, first, head, output_stride, columns, V, C), output.to(narrow), mask=inside)
