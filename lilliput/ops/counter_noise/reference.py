"""Philox4x32-10 (Salmon et al., SC 2011), the specification: ten rounds over a counter of four 32-bit words.

In int64 and without a sign: products wrap around, of which the low and the high 32 bits are those of unsigned numbers.
"""

import math

import torch
from torch import Tensor

WORD = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], seed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return four random words for each counter.

    Args:
        counter: four int64 tensors of 32-bit words, of shapes that broadcast.
        seed: [] int64; its two words are the key.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = seed & WORD, (seed >> 32) & WORD
    for _ in range(ROUNDS):
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = _high(second) ^ c1 ^ k0, second & WORD, _high(first) ^ c3 ^ k1, first & WORD
        k0, k1 = (k0 + KEY_STEPS[0]) & WORD, (k1 + KEY_STEPS[1]) & WORD
    return c0, c1, c2, c3


def uniform(seed: Tensor, rows: Tensor, stream: int, numbers: int) -> Tensor:
    """Return [B, numbers] in fp32, each above 0 and below 1: the middles of 2^24 equal intervals.

    Args:
        seed: [] int64.
        rows: [B] int64, what a row is known by; below 2^32.
        stream: which of the independent draws of a row.
        numbers: of a row.
    """
    quads = torch.arange(-(-numbers // 4), device=rows.device)
    counter = (quads[None, :], rows[:, None], torch.full_like(rows, stream)[:, None], torch.zeros_like(rows)[:, None])
    words = torch.stack(torch.broadcast_tensors(*philox(counter, seed)), dim=-1).flatten(1)
    return ((words[:, :numbers] >> 8).float() + 0.5) * 2.0**-24


def normal(seed: Tensor, rows: Tensor, stream: int, numbers: int) -> Tensor:
    """Return [B, numbers] standard normal numbers in fp32 (Box and Muller: two from each two uniform ones)."""
    even = uniform(seed, rows, stream, numbers + numbers % 2).unflatten(1, (-1, 2))
    radius, angle = torch.sqrt(-2 * torch.log(even[..., 0])), 2 * math.pi * even[..., 1]
    pairs = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
    return pairs.flatten(1)[:, :numbers]


def _high(product: Tensor) -> Tensor:
    return (product >> 32) & WORD
