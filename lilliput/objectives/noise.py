"""Randomness of a training step: a function of (seed, step, row), whatever micro-batch or rank the row is in."""

import torch
from torch import Tensor

from lilliput.base.files import seed_of
from lilliput.ops import counter_noise


class Noise:
    """The random numbers of one step, the same ones after a kill, in other micro-batches and in a CUDA graph.

    Rows are those of `Batch.row`; `stream` tells the draws of a row apart.
    """

    def __init__(self, device: torch.device | str):
        self.seed = torch.zeros((), dtype=torch.int64, device=device)
        """The step's key; a captured step reads it at each replay."""

    def begin_step(self, seed: int, step: int) -> "Noise":
        """Draw from step `step` (from 0) of a phase of this seed from now on."""
        self.seed.fill_(seed_of(f"{seed}/{step}"))
        return self

    def uniform(self, rows: Tensor, *shape: int, stream: int = 0) -> Tensor:
        """Return uniform numbers above 0 and below 1, [B, *shape] in fp32, for rows [B] of the step."""
        return counter_noise.uniform(self.seed, rows, shape, stream)

    def normal(self, rows: Tensor, *shape: int, stream: int = 0) -> Tensor:
        """Return standard normal numbers, [B, *shape] in fp32, for rows [B] of the step."""
        return counter_noise.normal(self.seed, rows, shape, stream)


def draw_variant(seed: int, step: int, variants: int) -> int:
    """Return the variant of a step, below `variants` and each as likely, a function of (seed, step) alone."""
    return seed_of(f"{seed}/{step}/variant") % variants
