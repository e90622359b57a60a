"""Tile configs of the Triton kernels: shipped for classes of devices, so that nothing is tried out on first use."""

from typing import NamedTuple

import torch

from lilliput.ops import tile_cache
from lilliput.ops.dispatch import is_hopper

NAME = "gla"
"""Under which a cut that was measured is kept."""


class Tile(NamedTuple):
    """Tile of one program of a kernel: how much it takes at a time of the key and value channels, with how many warps,
    how many iterations of its loops it loads ahead, and the registers a thread may have, if fewer than the compiler
    would take.
    """

    keys: int
    values: int
    warps: int = 4
    stages: int = 1
    registers: int | None = None

    def within(self, keys: int, values: int) -> "Tile":
        return self._replace(keys=min(self.keys, keys), values=min(self.values, values))


class Tiles(NamedTuple):
    """Positions of a chunk, a power of two, and the tile of each kernel."""

    chunk: int
    states: Tile
    outputs: Tile
    gradients: Tile


HOPPER = Tiles(
    64,
    states=Tile(64, 64, stages=3),
    outputs=Tile(64, 128, stages=3, registers=168),
    gradients=Tile(64, 64, stages=3),
)
"""One H100, 2026-11-25, bf16, [32, 2048, 6, 128], caches cold: states 0.19 ms and in reverse the same, outputs 0.49 and
0.23, gradients 0.79 (2026-11-26; with two stages 1.00); other tiles took 0.20 to 0.26, 0.76 to 0.97 both ways, and 1.02
to 1.90. Three programs of states and outputs share a multiprocessor, two of gradients; with 168 registers those wait
for every product by itself. A tile is only to be shipped with its parity checked on the device: (32, 64) with 4 warps
was wrong there (see `WIDTHS` in `triton`)."""
OTHERS = Tiles(64, states=Tile(64, 64, stages=2), outputs=Tile(64, 128), gradients=Tile(64, 32))
SINGLE = Tiles(32, states=Tile(32, 32, stages=2), outputs=Tile(32, 128), gradients=Tile(32, 16))
"""fp32 operands take twice the room, and thrice that where three tf32 products make one."""


def tiles_for(dtype: torch.dtype, device: torch.device) -> Tiles:
    if dtype == torch.float32:
        return SINGLE
    return tile_cache.tile_configs(NAME, HOPPER if is_hopper(device) else OTHERS)
