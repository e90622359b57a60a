"""The same numbers from one kernel, which writes each of them once and reads nothing but seed and rows."""

import torch
import triton
import triton.language as tl
from torch import Tensor

QUADS = 256
"""Groups of four numbers to a program."""


@triton.jit
def noise_kernel(seed, rows, out, stream, numbers, normal: tl.constexpr, quads: tl.constexpr):
    """Four numbers from each counter (quad, row, stream, 0)."""
    row = tl.program_id(0)
    quad = tl.program_id(1) * quads + tl.arange(0, quads)
    zeros = tl.zeros([quads], tl.uint32)
    c0, c1 = quad.to(tl.uint32), zeros + tl.load(rows + row).to(tl.uint32)
    w0, w1, w2, w3 = tl.philox(tl.load(seed), c0, c1, (zeros + stream).to(tl.uint32), zeros)
    u0, u1, u2, u3 = _between(w0), _between(w1), _between(w2), _between(w3)
    if normal:
        first, second = tl.sqrt(-2 * tl.log(u0)), tl.sqrt(-2 * tl.log(u2))
        u0, u1 = first * tl.cos(6.283185307179586 * u1), first * tl.sin(6.283185307179586 * u1)
        u2, u3 = second * tl.cos(6.283185307179586 * u3), second * tl.sin(6.283185307179586 * u3)
    here = out + row.to(tl.int64) * numbers
    place = 4 * quad
    tl.store(here + place, u0, mask=place < numbers)
    tl.store(here + place + 1, u1, mask=place + 1 < numbers)
    tl.store(here + place + 2, u2, mask=place + 2 < numbers)
    tl.store(here + place + 3, u3, mask=place + 3 < numbers)


@triton.jit
def _between(word):
    """A number above 0 and below 1 from 32 random bits, the upper 24 of them."""
    return ((word >> 8).to(tl.float32) + 0.5) * 5.9604644775390625e-08


def draw_triton(seed: Tensor, rows: Tensor, stream: int, numbers: int, *, is_normal: bool) -> Tensor:
    """Return [B, numbers] in fp32, uniform or normal; see the reference."""
    out = torch.empty(len(rows), numbers, device=rows.device)
    grid = (len(rows), triton.cdiv(numbers, 4 * QUADS))
    noise_kernel[grid](seed, rows, out, stream, numbers, is_normal, QUADS)  # type: ignore[arg-type]
    return out
