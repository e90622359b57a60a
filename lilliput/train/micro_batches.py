"""The rows of a micro-batch: as many as the machine says, or, where its `rows` are `memory`, the most that fit.

A stage begins with all rows of a step in one pass. Where memory runs out they are halved, and the same step is made
again: same rows in the same order, same randomness. Nothing of it was applied yet.

How rows are split is part of what the bits of a run depend on. So `checkpoints/rows.json` has what was found, from
which step of which stage on, and is written before the first such step is taken: whoever goes on, from whichever
checkpoint, splits each step as it was split then, and tries nothing again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lilliput.base.errors import MachineError, RunError
from lilliput.base.files import read_json, verify_checksum, with_checksum, write_json
from lilliput.train.machine import Machine
from lilliput.train.memory import memory_summary, ran_out
from lilliput.train.phase import Phase, StepPlan
from lilliput.train.ranks import Ranks

FILE = "rows.json"
Record = dict[str, int]
"""`rows` of a micro-batch at most, of steps of a `stage`, `from` a step on (counted from 0)."""


class StepOutOfMemory(Exception):
    """Memory ran out while step `step` (from 0) of a stage was applied, which cannot be done again from its middle."""

    def __init__(self, step: int, stage: int):
        super().__init__(step, stage)
        self.step, self.stage = step, stage


@contextmanager
def during_update(step: int, stage: int) -> Iterator[None]:
    """Around what changes weights.

    Raises:
        StepOutOfMemory: memory ran out.
    """
    try:
        yield
    except RuntimeError as error:
        if not ran_out(error):
            raise
        raise StepOutOfMemory(step, stage) from error


class MicroBatches:
    """The micro-batches of a phase's steps."""

    def __init__(self, machine: Machine, phase: Phase, folder: Path, ranks: Ranks, report: Callable[[str], None]):
        """As the record in a folder has them, so far; told to `report` where they become smaller."""
        self._machine, self._phase, self._ranks, self._report = machine, phase, ranks, report
        self._rows, self._path = StepPlan(phase).rows, folder / FILE
        self._records = list(read_rows(folder)) if machine.rows_from_memory else []
        self._written = list(self._records)

    def shares(self, step: int, stage: int) -> list[tuple[int, int]]:
        """Return the micro-batches of step `step` (from 0), as (rank, rows)."""
        most = min(self._known(step, stage), default=None)
        return [
            (rank, part)
            for rank, rows in self._ranks.rows(step, self._rows)
            for part in self._machine.micro_batch_sizes(
                rows, self._phase.stages[stage].positions(self._phase.length), most
            )
        ]

    def largest(self, step: int, stage: int) -> int:
        """Return the rows of its largest micro-batch."""
        return max(rows for _, rows in self.shares(step, stage))

    def is_known(self, step: int, stage: int) -> bool:
        """Return whether the micro-batch size is fixed or already found."""
        return not self._machine.rows_from_memory or bool(self._known(step, stage))

    def halve_micro_batch(self, step: int, stage: int, *, since: int | None = None) -> None:
        """Halve the micro-batch of step `step` of a stage, from that step on, or since an earlier one.

        Raises:
            MachineError: they are given, or one row was too many.
        """
        tried, begin = self.largest(step, stage), step if since is None else since
        if tried == 1 or not self._machine.rows_from_memory:
            raise self.no_room(step, stage)
        self._records = [one for one in self._records if (one["from"], one["stage"]) != (begin, stage)]
        self._records.append({"from": begin, "stage": stage, "rows": (tried + 1) // 2})
        self._report(
            f"step {step + 1:,} of {self._phase.name}: {tried:,} rows of {self._phase.length:,} positions do not fit "
            f"into memory; on in micro-batches of at most {(tried + 1) // 2:,}"
        )

    def keep(self, step: int, stage: int) -> None:
        """Record the micro-batch size that fitted, before the step is taken."""
        if not self.is_known(step, stage):
            self._records.append({"from": step, "stage": stage, "rows": self.largest(step, stage)})
        if self._records != self._written:
            self._written = list(self._records)
            if self._ranks.writes:
                write_json(self._path, with_checksum({"rows": self._records}))

    def no_room(self, step: int, stage: int) -> MachineError:
        """Return the error for a step whose micro-batches cannot be halved."""
        tried, device = self.largest(step, stage), self._machine.device
        rows = "one row" if tried == 1 else f"{tried:,} rows"
        fewer = "let `rows` of the machine be fewer, and resume with --allow-change"
        if tried == 1:
            fewer = "close what else uses it, or take a smaller model, or shorter rows (`length` of the phase)"
        elif not self._machine.rows_from_memory:
            fewer = f'{fewer}; or "memory", which finds them'
        return MachineError(
            f"memory ran out in a pass over {rows} of {self._phase.length:,} positions "
            f"({device}: {memory_summary(device)})",
            where=f"step {step + 1:,} of phase {self._phase.name!r}",
            hint=f"{fewer}; what was saved before is whole",
        )

    def _known(self, step: int, stage: int) -> list[int]:
        return [one["rows"] for one in self._records if one["stage"] == stage and one["from"] <= step]


def read_rows(folder: Path) -> Sequence[Record]:
    """Return the micro-batch sizes found for a phase, given the folder of its checkpoints: `from`, `stage`, `rows`.

    Raises:
        RunError: the record is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return []
    try:
        return verify_checksum(read_json(path))["rows"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"the record of micro-batches is damaged ({error})",
            where=str(path),
            hint="put it back from a copy; without it the run goes on in others, to weights that differ in rounding",
        ) from error
