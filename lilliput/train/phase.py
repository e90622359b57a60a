"""A phase of training, and the plan that turns its tokens into steps.

A step is a fixed number of positions, so every stage of a phase costs the same; a stage with bags of S tokens reads S
times the text. Shares of stages are shares of steps:  steps = tokens / (positions a step * sum(share * S)).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, ClassVar, Protocol

from lilliput.base.errors import RecipeError
from lilliput.base.ownership import check_name
from lilliput.base.protocols import check_parts
from lilliput.base.spec import LATER, check_range
from lilliput.base.units import Share, Steps, Tokens
from lilliput.data.batch import Batch, Cursor
from lilliput.entry import TimelineEntry
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.objective import Objective
from lilliput.optim.ema import EmaSpec, NoEma
from lilliput.optim.optimizer import OptimizerSpec
from lilliput.optim.schedule import Schedule, WarmupStableDecay, check_durations, stable_until
from lilliput.train.spike_detection import Guard, GuardSpec


class Reader(Protocol):
    """Training data as a function of a cursor."""

    @property
    def tokens_available(self) -> int:
        """Tokens of one pass."""
        ...

    def read(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> tuple[Batch, Cursor]:
        """`rows` rows of `length` tokens from the cursor on, and the cursor after them."""
        ...


class DataSpec(Protocol):
    """Training data as recipes write it: `Mixture` or `ChatData`."""

    @property
    def corpora(self) -> tuple[str, ...]:
        """Names of the recipe's corpora that it reads."""
        ...

    def bytes_per_token(self, tokens: Mapping[str, Any]) -> float | None:
        """UTF-8 bytes of text that a training token stands for; None where that is no measure."""
        ...

    def open(self, tokens: Mapping[str, Any]) -> Reader:
        """A reader over the opened token files of those corpora."""
        ...


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A share of a phase's steps under one objective; model, optimizer, schedule and cursor go on across stages."""

    share: float
    objective: Objective

    def __post_init__(self) -> None:
        check_parts(self)


@dataclass(frozen=True, kw_only=True)
class Phase(TimelineEntry):
    """One stretch of training with one optimizer and one schedule."""

    kind: ClassVar[str] = "phase"

    name: str
    tokens: Tokens
    """Text tokens to read; rounded down to whole steps."""
    length: int
    """Positions of a row."""
    batch_tokens: int
    """Positions of a step, a multiple of `length`."""
    data: DataSpec
    optimizer: OptimizerSpec
    stages: tuple[Stage, ...] = (Stage(share=1.0, objective=NextToken()),)
    schedule: Schedule = WarmupStableDecay()
    ema: EmaSpec = NoEma()
    clip: float = 1.0
    """Largest global l2 norm of the gradient."""
    guard: GuardSpec = Guard()
    """Rule for steps that must not be taken."""
    save_every: Steps = Steps(100)
    measure_every: Share = Share(0.25)
    """Interval of held-out measurements; the last one is at the end."""
    keep: tuple[Steps | Share, ...] = field(default=(), metadata=LATER)
    """Steps, or shares of the steps, after which a checkpoint stays for good: growths average them, say."""
    resumes: str | None = field(default=None, metadata=LATER)
    """The phase right before it, releases aside, whose state it begins with: weights, average, optimizer, precision
    and place in the data as they were before that phase's decay; at its end, where its schedule has none."""

    def __post_init__(self) -> None:
        check_name("phase", self.name, "Phase(name=...)")
        check_parts(self)
        where = f"Phase {self.name!r}"
        check_range(where, 1, inf, length=self.length, batch_tokens=self.batch_tokens)
        if isinstance(self.save_every, Steps):
            check_range(where, 1, inf, save_every=self.save_every.count)
        if not self.clip > 0:
            raise RecipeError(f"clip cannot be {self.clip}", where=where, hint="give a norm above 0")
        if beyond := [str(point.count) for point in self.keep if isinstance(point, Steps) and point.count < 1]:
            raise RecipeError(
                f"keep names step {', '.join(beyond)}, which does not exist", where=where, hint="steps count from 1"
            )
        if self.batch_tokens % self.length:
            raise RecipeError(
                f"batch_tokens={self.batch_tokens} is no multiple of length={self.length}",
                where=where,
                hint="make it a multiple: a step consists of whole rows",
            )
        if abs(sum(stage.share for stage in self.stages) - 1) > 1e-9:
            shares = ", ".join(str(stage.share) for stage in self.stages)
            raise RecipeError(
                f"the shares of the stages ({shares}) do not add up to 1", where=where, hint="make them add up to 1"
            )
        if StepPlan(self).steps < 1:
            raise RecipeError(
                f"{int(self.tokens):,} tokens are less than one step of {self.batch_tokens:,} positions",
                where=where,
                hint="give the phase more tokens or smaller batches",
            )
        check_durations(self.schedule, StepPlan(self).steps, where)

    @property
    def steps(self) -> int:
        """Optimizer steps of all stages."""
        return StepPlan(self).steps

    def reads(self) -> tuple[str, ...]:
        """Names of the corpora of its data."""
        return tuple(self.data.corpora)

    def describe(self) -> str:
        """Name and steps."""
        return f"{self.name}, {self.steps:,} steps"

    def part(self, index: int) -> str:
        """See `phase_folder`."""
        return phase_folder(index, self)


KEPT_FOLDER = "kept"
"""The folder of the checkpoints of `Phase.keep`, in the folder of a phase."""


def phase_folder(place: int, phase: Phase) -> str:
    """The part of a run that the phase at a place of the timeline is."""
    return f"phases/{place:02d}-{phase.name}"


class StepPlan:
    """Which step belongs to which stage; everything here follows from the phase alone."""

    def __init__(self, phase: Phase):
        self.phase = phase
        tokens_per_position = sum(stage.share * stage.objective.tokens_per_position for stage in phase.stages)
        self.steps = int(int(phase.tokens) / (phase.batch_tokens * tokens_per_position))
        self.rows = phase.batch_tokens // phase.length
        self.stable_until = stable_until(phase.schedule, self.steps)
        """Steps before the decay of a stable rate; None where there is none."""
        begun = 0.0
        self._begins = []
        for stage in phase.stages:
            self._begins.append(round(begun * self.steps))
            begun += stage.share

    @property
    def kept_steps(self) -> tuple[int, ...]:
        """Steps after which a checkpoint stays for good, in order."""
        return tuple(sorted({max(1, point.of(self.steps)) for point in self.phase.keep}))

    @property
    def resumable(self) -> int:
        """Steps after which a phase that resumes this one begins."""
        return self.steps if self.stable_until is None else self.stable_until

    def stage(self, step: int) -> int:
        """The place of the stage that step `step` (from 0) belongs to."""
        return max(place for place, begin in enumerate(self._begins) if begin <= step)

    def is_due(self, every: Steps | Share, step: int) -> bool:
        """Return whether something that happens every so often, and at the end, happens after step `step` (from 1).

        What happens every share of the steps is left out right before the end, where it would come twice.
        """
        apart = max(1, every.of(self.steps))
        is_last_but_end = isinstance(every, Share) and 2 * (self.steps - step) < apart
        return step == self.steps or (step % apart == 0 and not is_last_but_end)
