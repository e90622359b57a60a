"""Learning-rate multipliers: pure functions of (step, steps), so that resuming needs no scheduler state."""

import math
from bisect import bisect_right
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


@dataclass(frozen=True, kw_only=True)
class CosineCycles:
    """Cycles of equal length in the last part of another schedule; in each the rate falls by half a cosine.

    A cycle begins at the rate of the other schedule and ends at `floor` of it (SGDR, arXiv 1608.03983). Checkpoints at
    the ends of cycles are near each other and lower in loss than those between them, so that their mean is worth having
    (arXiv 1704.00109, 1803.05407). The whole of a phase in four cycles, each kept for `AverageKept`:

        schedule=CosineCycles(base=Constant(), part=Share(1.0), count=4),
        keep=(Share(0.25), Share(0.5), Share(0.75), Share(1.0)),
    """

    base: Schedule
    """The rate without cycles."""
    part: Share = Share(0.25)
    """The last part of the phase, which the cycles take."""
    count: int = 4
    floor: float = 0.05
    """Share of the rate without cycles that a cycle ends at."""

    def __post_init__(self) -> None:
        check_range("CosineCycles", 1, math.inf, count=self.count)
        check_range("CosineCycles", 0, 1, floor=self.floor)

    def __call__(self, step: int, steps: int) -> float:
        rate, ends = self.base(step, steps), self.ends(steps)
        number = min(bisect_right(ends, step), self.count)
        if number == 0:  # before the first cycle
            return rate
        begin, end = ends[number - 1], ends[number]
        return rate * (self.floor + (1 - self.floor) * TAILS["cosine"]((step - begin) / max(1, end - begin)))

    def ends(self, steps: int) -> list[int]:
        """Return the step that the first cycle begins at and those that cycles end before, of a phase of `steps`.

        They are never before the steps that `Phase.keep` has for the same share, however that is rounded: a checkpoint
        right after an end would have taken a step at the full rate again.
        """
        shares = (1 - self.part.fraction * (1 - number / self.count) for number in range(self.count + 1))
        return [int(share * steps + 1e-9) for share in shares]


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
    if isinstance(schedule, CosineCycles):
        return replace(schedule, base=resumed_schedule(schedule.base))
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
    if isinstance(schedule, CosineCycles):
        return check_durations(schedule.base, steps, where)
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
