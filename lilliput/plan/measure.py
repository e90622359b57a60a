"""What steps cost on this machine: real models, objectives and optimizers, run a little on random tokens.

    seconds a step = rows a step * seconds of a pass / its rows + seconds of an update

A pass is forward and backward of some rows, an update everything between the last backward and the next step. Nothing
is written, and threads are set back.
"""

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from lilliput.base.errors import MachineError, RecipeError
from lilliput.base.files import hash_of
from lilliput.base.spec import to_plain
from lilliput.data.batch import Batch, segments_of
from lilliput.model import LanguageModel, ModelSpec
from lilliput.objectives.objective import Objective, charged, step_generator
from lilliput.optim.optimizer import set_multiplier
from lilliput.plan.along import along
from lilliput.plan.clock import Clock
from lilliput.plan.kept import with_kept_bytes
from lilliput.recipe import Recipe
from lilliput.train.machine import Machine
from lilliput.train.phase import Phase, Plan

LONG_PASS = 1.0
"""Seconds of a pass from which on more rows would tell nothing new."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was timed: a pass under one stage's objective, or an update."""

    seconds: float
    """Median."""
    repeats: int
    workspace: int | None
    """Bytes needed at most beyond what stays, kept activations not counted; None where the allocator does not tell."""


@dataclass(frozen=True, kw_only=True)
class Pass(Measured):
    """Forward and backward of `rows` rows."""

    rows: int
    activations: int
    """Bytes kept between forward and backward, each storage once; weights are not among them."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of the steps of a phase."""

    passes: tuple[Pass, ...]
    """One a stage."""
    update: Measured


def probe(recipe: Recipe, machine: Machine, report: Callable[[str], None]) -> dict[int, Cost]:
    """Measure the phases of a recipe here.

    Args:
        recipe: whose phases.
        machine: this one.
        report: told what is being measured, and which phases cannot be.

    Returns:
        the cost of each phase by its place in the timeline; phases with parts that are not built are left out.

    Raises:
        MachineError: a phase needs more memory than there is.
    """
    machine = machine.settled()
    costs = {}
    with _prepared(machine):
        bench = _Bench(machine)
        for stop in along(recipe):
            if not isinstance(stop.entry, Phase):
                continue
            report(f"measuring a step of {stop.entry.name}")
            try:
                costs[stop.place] = bench.cost(stop.entry, stop.before)
            except RecipeError as error:
                report(f"{stop.entry.name} cannot be measured: {error.what}")
            except torch.OutOfMemoryError as error:
                raise MachineError(
                    f"a step of {stop.entry.name} does not fit into the memory of {machine.device}",
                    where="the machine's `rows` and `positions`",
                    hint="give a machine file with fewer",
                ) from error
    return costs


@contextmanager
def _prepared(machine: Machine) -> Iterator[None]:
    threads = torch.get_num_threads()
    machine.prepare()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if torch.device(machine.device).type == "cuda":
            torch.cuda.empty_cache()


class _Bench:
    """Measures each thing once: phases that differ in their data alone cost the same."""

    def __init__(self, machine: Machine):
        self._machine, self._device = machine, torch.device(machine.device)
        self._clock = Clock(self._device)
        self._passes: dict[str, Pass] = {}
        self._updates: dict[str, Measured] = {}
        self._model: LanguageModel | None = None
        self._longest = 0

    def cost(self, phase: Phase, spec: ModelSpec) -> Cost:
        most = max(self._machine.micro_rows(Plan(phase).rows, phase.length))
        passes = []
        for stage in phase.stages:
            key = hash_of([to_plain(spec), to_plain(stage.objective), phase.length, most])
            if key not in self._passes:
                self._passes[key] = self._pass(spec, stage.objective, phase.length, most)
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

    def _pass(self, spec: ModelSpec, objective: Objective, length: int, most: int) -> Pass:
        """With one row at first, and twice as many until a pass is long or the micro-batch is whole."""
        model = self._model_of(spec)
        task = _Task(model, objective, self._machine)
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
        peak = self._clock.workspace(task.run)
        return Pass(
            seconds=statistics.median(seconds),
            repeats=len(seconds),
            rows=rows,
            activations=task.activations,
            workspace=None if peak is None else max(0, peak - task.activations),
        )

    def _update(self, spec: ModelSpec, phase: Phase) -> Measured:
        """Without moving: at a rate of 0 as many steps as are run leave the same weights."""
        model = self._model_of(spec)
        optimizer, average = phase.optimizer.build(model), phase.ema.build(model)
        set_multiplier(optimizer, 0.0)
        for parameter in model.parameters():
            parameter.grad = parameter.detach().clone()

        def run() -> None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), phase.clip)
            with self._machine.cast():
                optimizer.step()
            average.update(model, 1)

        seconds = self._clock.repeated(run, run)
        workspace = self._clock.workspace(run)
        return Measured(seconds=statistics.median(seconds), repeats=len(seconds), workspace=workspace)


class _Task:
    """Forward and backward of one batch of random tokens."""

    def __init__(self, model: LanguageModel, objective: Objective, machine: Machine):
        self._model, self._objective, self._machine = model, objective, machine
        self._module = objective.build(model)
        self._generator = step_generator(0, 0, torch.device(machine.device))
        self.activations = 0
        """Bytes that the last counting run kept."""

    def batch(self, rows: int, length: int) -> None:
        """Take another batch, of `rows` rows of `length` positions."""
        self._batch = _random_batch(rows, self._objective.row_length(length), self._model.spec.vocab)
        self._charged = charged(self._batch, self._objective.tokens_per_position)

    def run(self) -> None:
        self._forward().backward()

    def run_counting(self) -> None:
        """The same, counting what is kept in between."""
        loss, self.activations = with_kept_bytes(self._forward, self._model)
        loss.backward()

    def _forward(self) -> Tensor:
        with self._machine.cast():
            return self._module(self._batch.to(self._machine.device), self._charged, self._generator).total


def _random_batch(rows: int, length: int, vocab: int) -> Batch:
    tokens = torch.randint(vocab, (rows, length), generator=torch.Generator().manual_seed(0))
    segments = torch.from_numpy(segments_of(tokens.numpy(), end=0))
    return Batch(tokens=tokens, weight=torch.ones(rows, length), segments=segments)
