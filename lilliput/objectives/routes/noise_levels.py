"""Levels of noise whose logarithm is normal, cut into ranges of equal probability (DiffusionBlocks, arXiv 2506.14202).

    log sigma ~ N(mean, std^2),  lowest <= sigma <= highest

Blocks are counted in order of processing: the first one has the most noise.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor


class NoiseRange(NamedTuple):
    """The noise levels of one block."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class NoiseLevels:
    """The distribution that noise levels are drawn from."""

    mean: float
    """Mean of log sigma."""
    std: float
    """Standard deviation of log sigma."""
    lowest: float
    """The least sigma."""
    highest: float
    """The largest sigma."""

    def boundaries(self, parts: int) -> list[float]:
        """Return `parts` + 1 levels that fall from the largest to the least, equal probability between neighbors."""
        least, most = self._probability(self.lowest), self._probability(self.highest)
        inner = (most - part / parts * (most - least) for part in range(1, parts))
        return [self.highest, *(self._level(probability) for probability in inner), self.lowest]

    def ranges(self, blocks: int, overlap: float) -> list[NoiseRange]:
        """Return the range of each block, widened by the factor (high / low)^overlap at both ends."""
        ends = self.boundaries(blocks)
        return [self._widened(low, high, overlap) for high, low in pairwise(ends)]

    def draw(self, uniform: Tensor, within: NoiseRange) -> Tensor:
        """Return the levels inside of a range that uniform numbers above 0 and below 1 stand for."""
        first, last = (math.erf(self._standard(end) / math.sqrt(2)) for end in within)
        standard = math.sqrt(2) * torch.erfinv(first + uniform * (last - first))
        return torch.exp(self.mean + self.std * standard).clamp(within.low, within.high)

    def _widened(self, low: float, high: float, overlap: float) -> NoiseRange:
        factor = (high / low) ** overlap
        return NoiseRange(max(self.lowest, low / factor), min(self.highest, high * factor))

    def _standard(self, level: float) -> float:
        return (math.log(level) - self.mean) / self.std

    def _probability(self, level: float) -> float:
        return NormalDist().cdf(self._standard(level))

    def _level(self, probability: float) -> float:
        return math.exp(self.mean + self.std * NormalDist().inv_cdf(probability))
