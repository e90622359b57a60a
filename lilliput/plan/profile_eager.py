"""Profiles steps that run operation by operation: a pass and an update, put together.

    seconds a step = rows a step * seconds of a pass / its rows + seconds of an update

A pass is forward and backward of some rows, an update everything between the last backward and the next step.
"""

import statistics

import torch

from lilliput.base.files import hash_of
from lilliput.base.spec import to_plain
from lilliput.data.batch import Batch, document_ids_of
from lilliput.model import LanguageModel, ModelSpec
from lilliput.objectives.objective import Objective
from lilliput.optim.optimizer import set_multiplier
from lilliput.plan.cost import Cost, Measured, Pass
from lilliput.plan.saved_tensors import saved_tensor_bytes
from lilliput.plan.synthetic_data import AsRead, as_read, kind_of_rows
from lilliput.plan.timer import Timer
from lilliput.train.forward_backward import EagerForwardBackward, StepInputs
from lilliput.train.machine import Machine
from lilliput.train.phase import Phase, StepPlan
from lilliput.train.precision import precision_of
from lilliput.train.ranks import OneRank
from lilliput.train.trainable import Trainable

LONG_PASS = 1.0
"""Seconds of a pass from which on more rows would tell nothing new."""


class EagerProfile:
    """Measures each of them once: phases that differ in their data alone cost the same."""

    def __init__(self, machine: Machine):
        self._machine, self._device = machine, torch.device(machine.device)
        self._clock = Timer(self._device)
        self._passes: dict[str, Pass] = {}
        self._updates: dict[str, Measured] = {}
        self._model: LanguageModel | None = None
        self._longest = 0

    def cost(self, phase: Phase, spec: ModelSpec, targets: float = 1.0) -> Cost:
        """Measure the cost of a phase with a model of this shape."""
        most = max(self._machine.micro_batch_sizes(StepPlan(phase).rows, phase.length))
        passes = []
        for stage in phase.stages:
            length = stage.positions(phase.length)
            key = hash_of([to_plain(spec), to_plain(stage.objective), length, most, kind_of_rows(phase)])
            if key not in self._passes:
                self._passes[key] = self._pass(spec, stage.objective, length, most, as_read(phase))
            passes.append(self._passes[key])
        key = hash_of([to_plain(spec), to_plain(phase.optimizer), to_plain(phase.ema)])
        if key not in self._updates:
            self._updates[key] = self._update(spec, phase)
        return Cost(passes=tuple(passes), update=self._updates[key])

    def _model_of(self, spec: ModelSpec) -> LanguageModel:
        if self._model is None or self._model.spec != spec:
            self._model = None  # two at a time may not fit
            self._model = spec.build(seed=0).to(self._device)
        return self._model

    def _pass(self, spec: ModelSpec, objective: Objective, length: int, most: int, read: AsRead) -> Pass:
        """Time a pass with one row at first, and twice as many until a pass is long or the micro-batch is whole."""
        model = self._model_of(spec)
        task = _Task(model, objective, self._machine, read)
        if length > self._longest:
            # Memory that was never touched is slow: the first forward of 138 M parameters took 24 s, the second 4 s.
            task.batch(1, length)
            task.run()
            self._longest = length
        rows = 1
        while True:
            task.batch(rows, length)
            seconds = self._clock.repeated(task.run_counting, task.run)
            if rows == most or statistics.median(seconds) >= LONG_PASS:
                break
            rows = min(2 * rows, most)
        return Pass(seconds=statistics.median(seconds), repeats=len(seconds), rows=rows, activations=task.activations)

    def _update(self, spec: ModelSpec, phase: Phase) -> Measured:
        """Without moving: at a rate of 0 as many steps as are run leave the same weights."""
        model = self._model_of(spec)
        optimizer, average = phase.optimizer.build(model), phase.ema.build(model)
        precision = precision_of(self._machine.device, self._machine.precision, model)
        set_multiplier(optimizer, 0.0)
        for parameter in model.parameters():
            parameter.grad = parameter.detach().clone()

        def run() -> None:
            precision.step(optimizer.step, float(precision.clip(phase.clip)["grad_norm"]), f"an update of {phase.name}")
            average.update(dict(model.named_parameters()), 1)

        seconds = self._clock.repeated(run, run)
        return Measured(seconds=statistics.median(seconds), repeats=len(seconds))


class _Task:
    """Forward and backward of one batch of random tokens, as training makes them."""

    def __init__(self, model: LanguageModel, objective: Objective, machine: Machine, read: AsRead):
        self._model, self._objective, self._device = model, objective, torch.device(machine.device)
        trainable = Trainable.of_phase(model, [objective], seed=0)
        self._precision = precision_of(machine.device, machine.precision, trainable)
        self._passes = EagerForwardBackward(trainable, self._precision, OneRank())
        self._as_read = read
        self._inputs = StepInputs(step=0, stage=0, variant=0, progress=0.0, seed=0)
        self.activations = 0
        """Bytes that the last counting run kept."""

    def batch(self, rows: int, length: int) -> None:
        """Take another batch, of `rows` rows of `length` positions."""
        self._batch = self._as_read(_random_batch(rows, self._objective.row_length(length), self._model.spec.vocab))
        self._denominator = self._objective.denominator(self._batch)

    def run(self) -> None:
        self._passes(self._inputs, [self._batch], self._denominator)

    def run_counting(self) -> None:
        """The same, counting what is kept in between."""
        batch = self._batch.to(self._device)
        loss, self.activations = saved_tensor_bytes(
            lambda: self._passes.losses(self._inputs, batch, self._denominator).loss, self._model
        )
        self._precision.scale(loss).backward()


def _random_batch(rows: int, length: int, vocab: int) -> Batch:
    tokens = torch.randint(vocab, (rows, length), generator=torch.Generator().manual_seed(0))
    document_ids = torch.from_numpy(document_ids_of(tokens.numpy(), end=0))
    return Batch(tokens=tokens, weight=torch.ones(rows, length), document_ids=document_ids)
