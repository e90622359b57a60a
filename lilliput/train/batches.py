"""The rows of a step, of which each rank keeps its own; those of the next step are prefetched."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch

from lilliput.data.batch import Batch, Cursor
from lilliput.train.micro_batches import MicroBatches
from lilliput.train.phase import Phase, Reader, StepPlan
from lilliput.train.ranks import Ranks
from lilliput.train.rollback import Incidents


class StepBatches(NamedTuple):
    """The rows of a step."""

    batches: list[Batch]
    """Micro-batches of this worker, on the CPU."""
    denominator: float
    """The objective's: of the whole step, or of this rank's rows where ranks are not synchronous."""
    after: Cursor


class _Wanted(NamedTuple):
    """Everything that decides which rows are read."""

    stage: int
    cursor: Cursor
    shares: list[tuple[int, int]]


class BatchLoader:
    """Loads the batches of a phase's steps."""

    def __init__(
        self,
        phase: Phase,
        reader: Reader,
        device: str,
        ranks: Ranks,
        incidents: Incidents,
        micro_batches: MicroBatches,
    ):
        self._plan = StepPlan(phase)
        self._phase, self._reader, self._device, self._ranks = phase, reader, device, ranks
        self._incidents, self._micro_batches = incidents, micro_batches
        self._ahead: tuple[_Wanted, StepBatches] | None = None

    def read(self, step: int, stage: int, cursor: Cursor) -> StepBatches:
        """Return the rows of step `step` (from 0), prefetched ones if nothing has changed since."""
        wanted = _Wanted(stage, cursor, self._micro_batches.shares(step, stage))
        ahead, self._ahead = self._ahead, None
        return ahead[1] if ahead and ahead[0] == wanted else self._read(wanted)

    def prefetch(self, step: int, stage: int, cursor: Cursor, *, takes: Callable[[int, int], bool]) -> None:
        """Read the rows of the next step that this rank takes, if it is of the same stage, while the device computes.

        Args:
            step: the earliest one (from 0).
            stage: of the phase.
            cursor: where the rows of that step begin.
            takes: returns whether this rank takes a step of a stage; it passes over the others.
        """
        while step < self._plan.steps and self._plan.stage(step) == stage and not takes(step, stage):
            step, cursor = step + 1, self.skip(stage, cursor)
        if step >= self._plan.steps or self._plan.stage(step) != stage:
            return
        wanted = _Wanted(stage, cursor, self._micro_batches.shares(step, stage))
        self._ahead = wanted, self._read(wanted)

    def skip(self, stage: int, cursor: Cursor) -> Cursor:
        """Return the cursor after a step of a stage that other ranks take: its rows are not read."""
        length, overlap = self._phase.row_tokens(stage)
        return self._reader.skip(self._incidents.skip(cursor), self._plan.rows, length, overlap)

    def _read(self, wanted: _Wanted) -> StepBatches:
        objective, batches, whole = self._phase.stages[wanted.stage].objective, [], 0.0
        (length, overlap), cursor = self._phase.row_tokens(wanted.stage), self._incidents.skip(wanted.cursor)
        first = 0
        for rank, rows in wanted.shares:
            is_own = rank == self._ranks.rank
            if is_own or self._ranks.is_synchronous:
                batch, cursor = self._reader.read(cursor, rows, length, overlap)
                whole += objective.denominator(batch)
                if is_own:
                    batches.append(replace(batch, row=torch.arange(first, first + rows)).pinned_for(self._device))
            else:
                cursor = self._reader.skip(cursor, rows, length, overlap)
            first += rows
        return StepBatches(batches, whole, cursor)
