"""Tile configs of the attention kernels: shipped, so that nothing is tried out on first use."""

from typing import NamedTuple

import torch

from lilliput.ops import tile_cache


class Tile(NamedTuple):
    """Queries and keys of a block, warps of a program, how many blocks its loops load ahead, and the registers a thread
    may have, if fewer than the compiler would take."""

    queries: int
    keys: int
    warps: int
    stages: int
    registers: int | None = None


class Tiles(NamedTuple):
    """Tiles of each kernel. Outputs and query gradients visit keys: their queries are a multiple of their keys."""

    outputs: Tile
    dq: Tile
    dkdv: Tile


NARROW = Tiles(outputs=Tile(64, 64, 4, 2, 96), dq=Tile(64, 64, 4, 3), dkdv=Tile(64, 64, 4, 1, 128))
"""Heads of up to 32 channels, 16-bit. One H100, 2026-11-26, `benchmarks/attention.py --grid`, bf16, documents: 0.27,
0.25 and 0.44 ms at [128, 1024, 8 and 2 heads of 32]. Programs a multiprocessor decide: with the registers that the
compiler would take for the keys' gradients there are two, which take 0.59 ms, with 168 three (0.48), with 128 four.
Loading ahead costs registers, too: 0.91 ms with one stage more."""
MIDDLE = Tiles(outputs=Tile(64, 64, 4, 3, 128), dq=Tile(64, 64, 4, 3), dkdv=Tile(32, 64, 4, 1, 128))
"""Heads of 64 channels, 16-bit. 0.18, 0.18 and 0.34 ms at [16, 2048, 12 heads of 64]; the keys' gradients take 0.40
with 64 queries and the registers that the compiler would take."""
WIDE = Tiles(outputs=Tile(128, 64, 8, 3), dq=Tile(128, 64, 8, 2), dkdv=Tile(64, 64, 8, 1))
"""Heads of 128 channels, 16-bit."""
SINGLE = Tiles(outputs=Tile(64, 32, 4, 2), dq=Tile(64, 32, 4, 1), dkdv=Tile(32, 64, 4, 1))
"""fp32 operands take twice the room."""


def tiles_for(dtype: torch.dtype, width: int) -> Tiles:
    if dtype == torch.float32:
        return SINGLE
    return tile_cache.tile_configs(name_of(width), NARROW if width <= 32 else MIDDLE if width <= 64 else WIDE)


def name_of(width: int) -> str:
    """Under which a cut for heads of so many channels is kept."""
    return f"attend, heads of {width}"
