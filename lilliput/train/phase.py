"""A phase of training, and the plan that turns its tokens into steps.

Every step has the same number of rows. Where a stage leaves their length alone, its steps have the same number of
positions, too, and cost the same; with bags of S tokens they read S times the text. Where a stage has shorter rows its
steps are cheaper: bags of S tokens in an S-th of the positions read the same text. Shares of stages are of steps:

    steps = tokens / (positions a step * sum(share * S * length of the stage's rows / length of the phase's))
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, ClassVar, Protocol, cast

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

    def skip(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> Cursor:
        """Return the cursor after the rows that `read` would return, without reading them."""
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


class ComputedData(DataSpec, Protocol):
    """Training data that needs results of computations before its phase, such as a reference's log-probabilities."""

    @property
    def computed(self) -> tuple[str, ...]:
        """Names of the computations."""
        ...

    def with_computed(self, tokens: Mapping[str, Any], computed: Mapping[str, Any]) -> dict[str, Any]:
        """Return the token files with what was computed, given every `Computed` of the timeline so far."""
        ...


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A share of a phase's steps under one objective; model, optimizer, schedule and cursor go on across stages."""

    share: float
    objective: Objective
    length: int | None = field(default=None, metadata=LATER)
    """Positions of a row, fewer than those of the phase; None for as many. 512 bags of four in a phase of 2,048
    positions are patch-level training (arXiv 2407.12665): as much text a step, for about a quarter of the time."""

    def __post_init__(self) -> None:
        check_parts(self)
        check_range("Stage", 1, inf, length=1 if self.length is None else self.length)

    def positions(self, length: int) -> int:
        """Return the positions of a row in a phase whose rows have `length`."""
        return length if self.length is None else self.length


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
    samples: int = field(default=3, metadata=LATER)
    """Texts that the model writes at each measurement, after held-out prompts; 0 for none."""
    keep: tuple[Steps | Share, ...] = field(default=(), metadata=LATER)
    """Steps, or shares of the steps, after which a checkpoint stays for good: growths average them, say."""
    resumes: str | None = field(default=None, metadata=LATER)
    """The phase right before it, releases aside, whose state it begins with: weights, average, optimizer, precision
    and place in the data as they were before that phase's decay; at its end, where its schedule has none. With other
    data it begins at their start."""

    def __post_init__(self) -> None:
        check_name("phase", self.name, "Phase(name=...)")
        check_parts(self)
        where = f"Phase {self.name!r}"
        check_range(where, 1, inf, length=self.length, batch_tokens=self.batch_tokens)
        check_range(where, 0, inf, samples=self.samples)
        if longer := [stage.length for stage in self.stages if stage.positions(self.length) > self.length]:
            raise RecipeError(
                f"a stage has rows of {longer[0]:,} positions, and the phase of {self.length:,}",
                where=where,
                hint="let `length` of the phase be that of its longest rows: memory is planned for those",
            )
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

    def row_tokens(self, stage: int) -> tuple[int, int]:
        """Return the tokens of a row of a stage, and how many of them are those that the row before it ends with."""
        objective, positions = self.stages[stage].objective, self.stages[stage].positions(self.length)
        length = objective.row_length(positions)
        return length, length - positions * objective.tokens_per_position

    def reads(self) -> tuple[str, ...]:
        """Names of the corpora of its data."""
        return tuple(self.data.corpora)

    def needs(self) -> tuple[str, ...]:
        """Names of the computations that its data reads."""
        return tuple(getattr(self.data, "computed", ()))

    def with_computed(self, tokens: dict[str, Any], computed: Mapping[str, Any]) -> dict[str, Any]:
        """Return the token files of its corpora with what its data needs of earlier computations."""
        return cast(ComputedData, self.data).with_computed(tokens, computed) if self.needs() else tokens

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


def tokens_per_position(stages: Iterable[Stage], length: int) -> float:
    """Return the text tokens that a position stands for, over all stages of a phase whose rows have `length`."""
    return sum(
        stage.share * stage.objective.tokens_per_position * (stage.positions(length) / length) for stage in stages
    )


class StepPlan:
    """Which step belongs to which stage; everything here follows from the phase alone."""

    def __init__(self, phase: Phase):
        self.phase = phase
        self.steps = int(int(phase.tokens) / (phase.batch_tokens * tokens_per_position(phase.stages, phase.length)))
        self.rows = phase.batch_tokens // phase.length
        self.stable_until = stable_until(phase.schedule, self.steps)
        """Steps before the decay of a stable rate; None without one."""
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

    def positions(self, stage: int) -> int:
        """Positions that a step of a stage processes."""
        return self.rows * self.phase.stages[stage].positions(self.phase.length)

    def positions_until(self, step: int) -> int:
        """Positions that the first `step` steps process."""
        ends = [*self._begins[1:], self.steps]
        return sum(
            self.positions(stage) * max(0, min(step, end) - begin)
            for stage, (begin, end) in enumerate(zip(self._begins, ends, strict=True))
        )

    def tokens(self, stage: int) -> int:
        """Text tokens that a step of a stage reads."""
        return self.positions(stage) * self.phase.stages[stage].objective.tokens_per_position

    def is_due(self, every: Steps | Share, step: int) -> bool:
        """Return whether something that happens every so often, and at the end, happens after step `step` (from 1).

        What happens every share of the steps is left out right before the end, where it would come twice.
        """
        apart = max(1, every.of(self.steps))
        is_last_but_end = isinstance(every, Share) and 2 * (self.steps - step) < apart
        return step == self.steps or (step % apart == 0 and not is_last_but_end)
