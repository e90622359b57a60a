"""Profiles steps that are compiled and captured as CUDA graphs, by running some in the training loop.

Pieces would not add up there. A pass that is launched alone takes longer and keeps more than one that is replayed, each
number of rows is compiled again, and the allocator tells the whole peak.
"""

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from lilliput.base.files import hash_of
from lilliput.base.spec import to_plain
from lilliput.base.units import Tokens
from lilliput.model import LanguageModel, ModelSpec
from lilliput.optim.schedule import Constant
from lilliput.plan.cost import Cost, Pass
from lilliput.plan.synthetic_data import RandomRows, as_read, kind_of_rows
from lilliput.plan.timer import Timer
from lilliput.train.compile import compiled
from lilliput.train.loop import Trainer
from lilliput.train.machine import Machine
from lilliput.train.memory import give_back
from lilliput.train.micro_batches import StepOutOfMemory
from lilliput.train.phase import Phase, Stage, tokens_per_position
from lilliput.train.spike_detection import NoGuard

FIRST = 3
"""Steps that are not timed: they look at activations, compile, and record."""
MANY = 10_000
"""Steps of the phase that is measured; only a few of them are taken."""


class CompiledProfile:
    """Takes steps of phases on one device."""

    def __init__(self, machine: Machine, report: Callable[[str], None]):
        self._machine, self._device, self._report = machine, torch.device(machine.device), report
        self._clock = Timer(self._device)
        self._others = self._clock.allocated() or 0
        """Bytes that the process held before: none of training's."""
        self._costs: dict[str, Cost] = {}

    def cost(self, phase: Phase, spec: ModelSpec, targets: float = 1.0) -> Cost:
        """Measure the cost of a phase with a model of this shape, a given share of whose positions are targets.

        Phases that differ in nothing but their data cost the same.
        """
        alike = replace(phase, name="any", data=None, tokens=Tokens(1e18), schedule=Constant(), resumes=None)  # type: ignore[arg-type]
        key = hash_of([to_plain(spec), to_plain(alike), targets, kind_of_rows(phase)])
        if key not in self._costs:
            reader = RandomRows(spec.vocab, weight=targets, as_read=as_read(phase))
            self._costs[key] = self._cost(phase, spec, reader)
        return self._costs[key]

    def _cost(self, phase: Phase, spec: ModelSpec, reader: RandomRows) -> Cost:
        """Its stages one by one, each with an optimizer and graphs of its own."""
        model = spec.build(seed=0).to(self._device)
        found, peaks = [], []
        for stage in phase.stages:
            give_back(self._machine.device)  # what measured the one before
            found.append(self._stage(_alone(phase, stage), model, reader))
            peaks.append(self._clock.peak())
            model.zero_grad()
        known = [peak - self._others for peak in peaks if peak is not None]
        return Cost(
            passes=tuple(one for one, _ in found),
            update=None,
            rows=min(rows for _, rows in found) if self._machine.rows_from_memory else None,
            peak=max(known, default=None),
        )

    def _stage(self, phase: Phase, model: LanguageModel, reader: RandomRows) -> tuple[Pass, int]:
        """Steps of a phase of one stage, and the rows of a micro-batch that fitted."""
        with TemporaryDirectory() as name, compiled(model, self._machine.compile):
            trainer = Trainer(model, phase, reader, self._machine, folder=Path(name), seed=0, report=self._report)
            while True:
                trainer.restore()
                try:
                    return self._pass(trainer), trainer.micro_batches.largest(0, 0)
                except StepOutOfMemory as refused:
                    trainer.micro_batches.halve_micro_batch(refused.step, refused.stage, since=0)
                trainer.release()

    def _pass(self, trainer: Trainer) -> Pass:
        def step() -> None:
            trainer.train_step()

        for _ in range(FIRST):
            step()
        seconds = self._clock.repeated(step, step)
        rows = trainer.plan.rows
        return Pass(seconds=statistics.median(seconds), repeats=len(seconds), rows=rows, activations=None)


def _alone(phase: Phase, stage: Stage) -> Phase:
    """A long phase of one stage, at a rate of 0: as many steps as are taken leave the same weights."""
    tokens = Tokens(MANY * phase.batch_tokens * tokens_per_position([replace(stage, share=1.0)], phase.length))
    return replace(phase, tokens=tokens, stages=(replace(stage, share=1.0),), schedule=_still, guard=NoGuard())


def _still(step: int, steps: int) -> float:
    return 0.0
