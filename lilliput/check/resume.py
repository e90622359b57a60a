"""Checks of a phase as a whole: a run that was interrupted, or set back, ends in the bits of one that was not."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch

from lilliput.check.compare import largest_of
from lilliput.check.objective import unfit_for
from lilliput.check.random_rows import NumberedRows
from lilliput.check.result import CheckFailed, CheckSkipped, Result, result_of
from lilliput.check.small import ROWS, small_phase
from lilliput.data.batch import Batch, Cursor
from lilliput.growth.growth import CheckpointTensors
from lilliput.model import ModelSpec
from lilliput.train import checkpoint
from lilliput.train.loop import Trainer
from lilliput.train.machine import Machine
from lilliput.train.metrics_log import MetricsLogger, NullLogger
from lilliput.train.phase import Phase, Reader
from lilliput.train.rollback import read_incidents
from lilliput.train.spike_detection import Guard

MICRO = 2
"""Micro-batches of a step."""
CUT, SPOILED = 4, 3
"""The step (from 1) whose rows an interrupted run does not get any more, and the one whose rows are spoiled."""


def check_resuming(phase: Phase, model: ModelSpec) -> Iterator[Result]:
    """Check a phase on random rows, with a model of this shape."""
    checks = {"resuming": _resumes, "rollback": _rolls_back}
    for name, check in checks.items():

        def run(check: Callable[[_Phase], str] = check) -> str:
            if why := unfit_for(phase, model):
                raise CheckSkipped(why)
            with TemporaryDirectory() as folder:
                return check(_Phase(small_phase(phase), model, Path(folder)))

        yield result_of("phase", phase.name, name, run)


class _Interrupted(Exception):
    """A run was interrupted, as it was meant to be."""


class _Phase:
    """A phase that is trained several times."""

    def __init__(self, phase: Phase, model: ModelSpec, folder: Path):
        self.phase, self.vocab, self._model, self._folder = phase, model.vocab, model, folder

    def train(self, name: str, reader: Reader, **changes: Any) -> CheckpointTensors:
        """Train, or resume, in a folder of that name, and return the last checkpoint."""
        machine = Machine(device="cpu", precision="fp32", threads=1, rows=ROWS // MICRO, compile="off")
        Trainer(
            self._model.build(seed=0),
            replace(self.phase, **changes),
            reader,
            machine.resolved(),
            folder=self.checkpoints(name),
            seed=1,
            report=lambda line: None,
        ).train(lambda step: cast(MetricsLogger, NullLogger()), lambda objective, headline: {})
        last = checkpoint.newest(self.checkpoints(name), lambda line: None)
        assert last is not None, "training ends with one"
        return last.tensors

    def interrupted(self, name: str, spoiled: int | None = None, **changes: Any) -> CheckpointTensors:
        """Train until the rows end, then resume."""
        rows = NumberedRows(self.vocab, spoiled)
        with suppress(_Interrupted):
            self.train(name, _Ending(rows, (CUT - 1) * MICRO), **changes)
        return self.train(name, rows, **changes)

    def checkpoints(self, name: str) -> Path:
        """The folder of them."""
        return self._folder / name / "checkpoints"


class _Ending:
    """A reader that is gone after so many reads."""

    def __init__(self, reader: NumberedRows, reads: int):
        self._reader, self._left = reader, reads
        self.tokens_available = reader.tokens_available

    def read(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> tuple[Batch, Cursor]:
        self._left -= 1
        if self._left < 0:
            raise _Interrupted
        return self._reader.read(cursor, rows, length, overlap)

    def skip(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> Cursor:
        return self._reader.skip(cursor, rows, length, overlap)


def _resumes(phase: _Phase) -> str:
    """Interrupt it between two checkpoints."""
    straight = phase.train("straight", NumberedRows(phase.vocab))
    resumed = phase.interrupted("interrupted")
    _check_bits(resumed, straight, f"interrupted before step {CUT} and resumed", phase)
    return f"{phase.phase.steps} steps"


def _rolls_back(phase: _Phase) -> str:
    """Set it back by rows that are no numbers, once interrupted after that and once not."""
    if not isinstance(phase.phase.guard, Guard):
        raise CheckSkipped(f"its guard is {type(phase.phase.guard).__name__}")
    guard, spoiled = replace(phase.phase.guard, max_rollbacks=3), (SPOILED - 1) * ROWS
    straight = phase.train("straight", NumberedRows(phase.vocab, spoiled), guard=guard)
    if not read_incidents(phase.checkpoints("straight")):
        raise CheckSkipped("rows whose weights are no numbers do not show in its loss")
    resumed = phase.interrupted("interrupted", spoiled, guard=guard)
    _check_bits(resumed, straight, f"set back at step {SPOILED}, interrupted and resumed", phase)
    return f"set back at step {SPOILED}"


def _check_bits(found: CheckpointTensors, expected: CheckpointTensors, how: str, phase: _Phase) -> None:
    """Refuse a last checkpoint that is not that of an uninterrupted run."""
    ours = {f"{kind}/{name}": one for kind, tensors in expected.items() for name, one in tensors.items()}
    others = {f"{kind}/{name}": one for kind, tensors in found.items() for name, one in tensors.items()}
    unlike = [name for name, one in ours.items() if name not in others or not torch.equal(one, others[name])]
    if not unlike and ours.keys() == others.keys():
        return
    name = (unlike or sorted(others.keys() - ours.keys()))[0]
    both = name in ours and name in others and ours[name].shape == others[name].shape
    apart = f"{largest_of(others[name].double() - ours[name].double()):.3g} apart" if both else "not in both"
    raise CheckFailed(
        f"{how}, {len(unlike):,} of {len(ours):,} tensors end in other bits than without that: {name} is {apart}",
        where=f"the objectives and the optimizer of phase {phase.phase.name!r}",
        hint="keep what changes in parameters, persistent buffers or optimizer.state, and draw from `noise` alone",
    )
