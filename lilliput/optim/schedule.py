"""Learning-rate multipliers: pure functions of (step, steps), so that resuming needs no scheduler state."""

import math
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from lilliput.base.errors import RecipeError
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
    """Linear warm-up, a plateau, and a tail down to `floor` (WSD, arXiv 2404.06395)."""

    warmup: Duration = Share(0.02)
    first: Literal["first share", "zero"] = "first share"
    """The rate of the first step: its share of the warm-up, or 0, as in the code of SLM-10M's card, where that step
    moves nothing."""
    decay: Duration = Share(0.15)
    shape: Literal["cosine", "linear", "1-sqrt"] = "cosine"
    """Shape of the tail; `1-sqrt` falls fast and then lingers (arXiv 2405.18392)."""
    floor: float = 0.1

    def __post_init__(self) -> None:
        check_choice("WarmupStableDecay", TAILS, shape=self.shape)
        check_choice("WarmupStableDecay", ("first share", "zero"), first=self.first)
        check_range("WarmupStableDecay", 0, math.inf, floor=self.floor)

    def __call__(self, step: int, steps: int) -> float:
        warmup, tail = self.warmup.of(steps), self.decay.of(steps)
        if step < warmup:
            return (step if self.first == "zero" else step + 1) / warmup
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


def stable_until(schedule: Schedule, steps: int) -> int | None:
    """The step (from 0) at which a stable rate begins to decay; None where none is stable, or none decays."""
    if not isinstance(schedule, WarmupStableDecay):
        return None
    begin = steps - schedule.decay.of(steps)
    return begin if schedule.warmup.of(steps) < begin < steps else None


def resumed_schedule(schedule: Schedule) -> Schedule:
    """The schedule of a phase that resumes one of this schedule: at the stable rate from its first step on.

    One without a stable rate, such as `Cosine`, is warmed up again.
    """
    if isinstance(schedule, WarmupStableDecay | Constant):
        return replace(schedule, warmup=Steps(0))
    return schedule


def check_durations(schedule: Schedule, steps: int, where: str) -> None:
    """Refuse a schedule whose `warmup` and `decay`, where it has them, do not fit into a phase one after the other.

    Args:
        schedule: any.
        steps: of the phase.
        where: the phase, for the error.

    Raises:
        RecipeError: they do not.
    """
    given = {name: getattr(schedule, name, None) for name in ("warmup", "decay")}
    lengths = {  # as they are written: `of` cuts them at the end of the phase
        name: one.count if isinstance(one, Steps) else one.of(steps)
        for name, one in given.items()
        if isinstance(one, Duration)
    }
    if sum(lengths.values()) > steps:
        parts = " and ".join(f"{name} of {length:,} steps" for name, length in lengths.items())
        raise RecipeError(
            f"{parts} do not fit into the phase's {steps:,} steps",
            where=where,
            hint="give the phase more tokens, or shorter durations: Share(0.02) is 2% of the phase",
        )
