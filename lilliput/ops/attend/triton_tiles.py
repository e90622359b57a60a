"""How the kernels of attention cut their work: shipped, so that nothing is tried out on first use."""

from typing import NamedTuple

import torch

from lilliput.ops import tuned


class Tile(NamedTuple):
    """Queries and keys of a block, warps of a program, and how many blocks its loops load ahead."""

    queries: int
    keys: int
    warps: int
    stages: int


class Tiles(NamedTuple):
    """Of each kernel. Outputs and query gradients visit keys: their queries are a multiple of their keys."""

    outputs: Tile
    grad_queries: Tile
    grad_keys: Tile


NARROW = Tiles(outputs=Tile(64, 64, 4, 3), grad_queries=Tile(64, 64, 4, 3), grad_keys=Tile(64, 64, 4, 1))
"""Heads of up to 64 channels, 16-bit. One H100, 2026-11-25, `benchmarks/attention.py --grid`, bf16, whole rows: 0.35,
0.31 and 0.55 ms at [128, 1024, 8 and 2 heads of 32], 0.31, 0.30 and 0.60 ms at [16, 2048, 12 heads of 64]. Loading
ahead costs the keys' gradients registers, and with them programs a multiprocessor: 0.93 ms with one stage more."""
WIDE = Tiles(outputs=Tile(128, 64, 8, 3), grad_queries=Tile(128, 64, 8, 2), grad_keys=Tile(64, 64, 8, 1))
"""Heads of 128 channels, 16-bit."""
SINGLE = Tiles(outputs=Tile(64, 32, 4, 2), grad_queries=Tile(64, 32, 4, 1), grad_keys=Tile(32, 64, 4, 1))
"""fp32 operands take twice the room."""


def tiles_for(dtype: torch.dtype, width: int) -> Tiles:
    if dtype == torch.float32:
        return SINGLE
    return tuned.tiles(name_of(width), NARROW if width <= 64 else WIDE)


def name_of(width: int) -> str:
    """Under which a cut for heads of so many channels is kept."""
    return f"attend, heads of {width}"
