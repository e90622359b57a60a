"""The loop: loss, exchange, step, advance. Everything else is built before it or watches it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

import torch

from lilliput.model import LanguageModel
from lilliput.optim.optimizer import set_multiplier
from lilliput.train import checkpoint
from lilliput.train.batches import BatchLoader
from lilliput.train.checkpoint import AsyncCheckpointWriter, Checkpoint
from lilliput.train.checkpoint import Progress as Reached
from lilliput.train.compile import compiled
from lilliput.train.cuda_graphs import optimizer_step_of
from lilliput.train.forward_backward import StepRunner, forward_backward_of
from lilliput.train.machine import Machine
from lilliput.train.memory import enough_memory, give_back, ran_out
from lilliput.train.metrics_log import MetricsLogger
from lilliput.train.micro_batches import MicroBatches, StepOutOfMemory, during_update
from lilliput.train.phase import Phase, Reader, StepPlan
from lilliput.train.precision import precision_of
from lilliput.train.ranks import OneRank, Ranks
from lilliput.train.rollback import Incidents, LossSpike
from lilliput.train.signals import GracefulShutdown
from lilliput.train.state import State
from lilliput.train.validation import Measure, validate_ema_and_live

Report = Callable[[str], None]


def train_phase(
    model: LanguageModel,
    phase: Phase,
    reader: Reader,
    machine: Machine,
    *,
    folder: Path,
    seed: int,
    watch: Callable[[int], MetricsLogger],
    measure: Measure,
    report: Report,
    workers: Ranks = OneRank(),
    keep: Path | None = None,
    begin: Callable[[], Checkpoint] | None = None,
) -> dict[str, torch.Tensor]:
    """Train `model` in place through a phase, from its newest checkpoint on.

    Args:
        model: on the machine's device, with the weights the phase begins with.
        phase: what to do.
        reader: the training data.
        machine: resolved.
        folder: where checkpoints live.
        seed: of the phase's randomness; with the cursor it decides everything.
        watch: makes the observer, given the step that training begins at.
        measure: held-out numbers of a model, taken with averaged and with live weights where there is an average.
        report: told of damaged checkpoints that were passed over, of incidents, of micro-batches that become smaller,
            and where a signal made it leave.
        workers: of the machine's exchange, joined; only the first one writes.
        keep: where the state before the decay stays, for a phase that resumes this one; None for nowhere.
        begin: gives the state that the phase resumes, where it has no checkpoint of its own; None for a phase that
            begins with the model's weights alone.

    Returns:
        the averaged weights by name, empty where the phase keeps no average.

    Raises:
        DivergenceError: training leaves the numbers that can be computed with, and going back does not help.
        MachineError: memory ran out, and micro-batches cannot be smaller.
    """
    incidents = Incidents(folder, writes=workers.rank == 0)
    micro_batches = MicroBatches(machine, phase, folder, workers, report)
    with (
        compiled(model, machine.compile),
        enough_memory(machine.device, f"phase {phase.name!r}, {folder}"),
        GracefulShutdown(echo=float(workers.count > 1)) as leaving,
    ):
        task = Task(
            model=model,
            phase=phase,
            reader=reader,
            machine=machine,
            folder=folder,
            seed=seed,
            report=report,
            workers=workers,
            incidents=incidents,
            micro_batches=micro_batches,
            shutdown=leaving,
            keep=keep,
            begin=begin,
        )
        while True:
            try:
                return _to_the_end(task, watch, measure)
            except LossSpike as incident:
                last = _last_checkpoint(task).progress
                incidents.add(incident, last, phase.guard.max_rollbacks, f"phase {phase.name!r}, {folder}")
                back = f"back to step {last.step:,}, on from there without the text since"
                report(f"step {incident.step:,}: {incident.why}; {back}")
            except StepOutOfMemory as refused:
                if workers.count > 1:
                    raise micro_batches.no_room(refused.step, refused.stage) from refused
                last = _last_checkpoint(task).progress
                micro_batches.halve_micro_batch(refused.step, refused.stage, since=last.step)
            give_back(machine.device)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a phase is trained from: the same, however often training goes back to a checkpoint."""

    model: LanguageModel
    phase: Phase
    reader: Reader
    machine: Machine
    folder: Path
    seed: int
    report: Report
    workers: Ranks
    incidents: Incidents
    micro_batches: MicroBatches
    shutdown: GracefulShutdown
    keep: Path | None = None
    begin: Callable[[], Checkpoint] | None = None


class Training:
    """A phase on its way, from the newest checkpoint on: all that changes, and the step that changes it."""

    def __init__(self, task: Task):
        model, phase, machine, workers = task.model, task.phase, task.machine, task.workers
        self.task, self.plan = task, StepPlan(phase)
        precision = precision_of(machine.device, machine.precision, model)
        self.state = State(
            model=model,
            optimizer=phase.optimizer.build(model),
            average=phase.ema.build(model),
            precision=precision,
            guard=phase.guard.build(phase.clip),
        )
        objectives = [stage.objective.build(model) for stage in phase.stages]
        self.passes = forward_backward_of(machine.compile, objectives, precision, model, workers)
        self.update = optimizer_step_of(machine.compile, self.state.optimizer, workers)
        self.reading = BatchLoader(phase, task.reader, machine.device, workers, task.incidents, task.micro_batches)
        self.losses = StepRunner(self.passes, self.state, self.reading, task.micro_batches, machine, workers, task.seed)
        self.memory_told = False
        """Whether a signal told a worker, in the last step, to leave."""
        found = checkpoint.newest(task.folder, task.report)
        self.is_new = found is None
        self.reached = Reached() if found is None else found.progress
        if found is None and task.begin is not None:
            found = task.begin()
            before = found.progress.before + found.progress.step
            self.reached = Reached(cursor=found.progress.cursor, before=before)
        if found is not None:
            self.state.load(found.tensors)

    def step(self) -> dict[str, float] | None:
        """Loss, exchange, step, advance.

        Returns:
            the numbers of the step; None where it was skipped, which only takes its text.

        Raises:
            LossSpike: it must not be taken; the weights are those before it.
            StepOutOfMemory: memory ran out where it was half taken.
            MachineError: memory ran out, and micro-batches cannot be smaller.
        """
        phase, state, step = self.task.phase, self.state, self.reached.step
        stage = self.plan.stage(step)
        multiplier = phase.schedule(step, self.plan.steps)
        set_multiplier(state.optimizer, multiplier)

        rows, parts = self.losses(step, stage, self.reached.cursor)
        if step + 1 < self.plan.steps and self.plan.stage(step + 1) == stage:
            self.reading.prefetch(step + 1, stage, rows.after)  # while the device computes
        with during_update(step, stage):
            read = _on_host(parts | state.precision.clip(phase.clip))
            numbers = read | self._exchanged({name: read[name] for name in parts})
            norm = numbers["grad_norm"]
            if isfinite(norm) or not state.precision.skips_nonfinite:
                why = state.guard.check(stage, numbers["cross_entropy"], norm)
                if why is not None:
                    raise LossSpike(why, step + 1, rows.after)
            where = f"step {step + 1} of phase {phase.name!r}, {self.task.folder}"
            taken = state.precision.step(self.update, norm, where)
            state.optimizer.zero_grad()
            if taken:
                state.average.update(state.model, self.reached.before + step + 1)
        read = self.plan.rows * phase.length * phase.stages[stage].objective.tokens_per_position
        tokens = self.reached.tokens + read
        self.reached = replace(self.reached, step=step + taken, cursor=rows.after, tokens=tokens)
        if not taken:
            return None
        return numbers | {"lr": multiplier} | state.precision.metrics() | self.task.incidents.numbers(step + 1)

    def _exchanged(self, parts: dict[str, float]) -> dict[str, float]:
        """The losses of all workers together."""
        numbers = self.task.workers.sum(parts | {"leaving": float(self.task.shutdown.requested)})
        self.memory_told = numbers.pop("leaving") > 0
        return numbers

    def measured(self, measure: Measure) -> dict[str, float]:
        """Held-out numbers, for which recorded passes make room if they have to."""
        try:
            return validate_ema_and_live(measure, self.state.model, self.state.average)
        except RuntimeError as error:
            if not ran_out(error):
                raise
        self.passes.release_graphs()
        give_back(self.task.machine.device)
        return validate_ema_and_live(measure, self.state.model, self.state.average)

    def checkpoint(self) -> Checkpoint:
        """All that it needs to go on from here."""
        return Checkpoint(progress=self.reached, tensors=self.state.tensors())


def _on_host(values: dict[str, torch.Tensor]) -> dict[str, float]:
    """Scalars as numbers, in one transfer: the only time in a step that the device has to have caught up."""
    return dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))


def _to_the_end(task: Task, watch: Callable[[int], MetricsLogger], measure: Measure) -> dict[str, torch.Tensor]:
    """From the newest checkpoint to the end of the phase; the averaged weights there.

    Raises:
        LossSpike: a step was not taken.
        StepOutOfMemory: a step could not be taken.
    """
    training, phase, workers = Training(task), task.phase, task.workers
    plan = training.plan
    with (
        AsyncCheckpointWriter(task.folder, writes=workers.rank == 0) as saver,
        watch(training.reached.step) as observer,
    ):
        if training.is_new:
            saver.save(training.checkpoint())
        while training.reached.step < plan.steps:
            before = training.reached.tokens
            numbers = training.step()
            if numbers is None:
                continue
            step, tokens = training.reached.step, training.reached.tokens
            observer.log_step(step, tokens, tokens - before, numbers)
            if plan.is_due(phase.measure_every, step):
                observer.log_validation(step, tokens, training.measured(measure))
            saver.check()
            if task.keep is not None and step == plan.stable_until:
                saver.save(training.checkpoint(), task.keep)  # first: it is there once a later one is
            if plan.is_due(phase.save_every, step) or training.memory_told:
                saver.save(training.checkpoint())
            if training.memory_told and step < plan.steps:
                saver.wait()
                workers.barrier()  # where one leaves, torchrun ends the others
                task.report(f"step {step:,} of {plan.steps:,} is saved; it goes on from there")
                task.shutdown.exit()
    return training.state.average.tensors


def _last_checkpoint(task: Task) -> Checkpoint:
    """Where training goes back to, with nothing left of the step that it did not take."""
    task.model.zero_grad()
    task.workers.barrier()  # the last checkpoint is written by now
    last = checkpoint.newest(task.folder, task.report)
    assert last is not None, "training begins with one"
    return last
