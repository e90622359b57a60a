"""Learning-rate multipliers: pure functions of (step, steps), so that resuming needs no scheduler state."""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from lilliput.base.spec import check_choice, check_range
from lilliput.base.units import Duration, Share, Steps

TAILS = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1 - done,
    "1-sqrt": lambda done: 1 - math.sqrt(done),
}
"""From 1 to 0 as `done` goes from 0 to 1."""


class Schedule(Protocol):
    """A schedule as recipes write it."""

    def __call__(self, step: int, steps: int) -> float:
        """Multiplier of the peak rate at `step` (from 0) of `steps`."""
        ...


@dataclass(frozen=True, kw_only=True)
class WarmupStableDecay:
    """Linear warm-up from 0, a plateau, and a tail down to `floor` (WSD, arXiv 2404.06395)."""

    warmup: Duration = Share(0.02)
    decay: Duration = Share(0.15)
    shape: Literal["cosine", "linear", "1-sqrt"] = "cosine"
    """Of the tail; `1-sqrt` falls fast and then lingers (arXiv 2405.18392)."""
    floor: float = 0.1

    def __post_init__(self) -> None:
        check_choice("WarmupStableDecay", TAILS, shape=self.shape)
        check_range("WarmupStableDecay", 0, math.inf, floor=self.floor)

    def __call__(self, step: int, steps: int) -> float:
        warmup, tail = self.warmup.of(steps), self.decay.of(steps)
        if step < warmup:
            return step / warmup
        begin = steps - tail
        if step < begin:
            return 1.0
        left = TAILS[self.shape]((step - begin) / max(1, tail))
        return self.floor + (1 - self.floor) * left


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Linear warm-up, then half a cosine down to `floor`."""

    warmup: Duration = Steps(300)
    floor: float = 0.1

    def __post_init__(self) -> None:
        check_range("Cosine", 0, math.inf, floor=self.floor)

    def __call__(self, step: int, steps: int) -> float:
        warmup = self.warmup.of(steps)
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, steps - warmup)
        return self.floor + (1 - self.floor) * TAILS["cosine"](done)


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Linear warm-up, then the peak to the end."""

    warmup: Duration = Steps(0)

    def __call__(self, step: int, steps: int) -> float:
        warmup = self.warmup.of(steps)
        return (step + 1) / warmup if step < warmup else 1.0
