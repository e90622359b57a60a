"""The loop: forward and backward, reduce, clip, check, step. Everything else is built before it or watches it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from lilliput.model import LanguageModel, copy_weights
from lilliput.objectives.noise import draw_variant
from lilliput.optim.optimizer import set_multiplier
from lilliput.train import checkpoint
from lilliput.train.batches import BatchLoader
from lilliput.train.checkpoint import AsyncCheckpointWriter, Checkpoint, Progress
from lilliput.train.compile import compiled
from lilliput.train.cuda_graphs import optimizer_step_of
from lilliput.train.forward_backward import StepInputs, StepRunner, forward_backward_of
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
from lilliput.train.trainable import OWNED, Trainable
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
    ranks: Ranks = OneRank(),
    keep: Path | None = None,
    kept: Path | None = None,
    begin: Callable[[], Checkpoint] | None = None,
) -> dict[str, Tensor]:
    """Train `model` in place through a phase, from its newest checkpoint on.

    Args:
        model: on the machine's device, with the weights the phase begins with.
        phase: what to do.
        reader: the training data.
        machine: resolved.
        folder: where checkpoints live.
        seed: of the phase's randomness; with the cursor it decides everything.
        watch: returns the logger, given the step that training begins at.
        measure: held-out numbers of an objective, taken with averaged and with live weights where there is an average.
        report: called with one line for each skipped checkpoint, rollback, smaller micro-batch and shutdown.
        ranks: the ranks of the machine's exchange, joined.
        keep: where the state before the decay stays, for a phase that resumes this one; None for nowhere.
        kept: where the checkpoints of `Phase.keep` stay; None for nowhere.
        begin: returns the state that the phase resumes, where it has no checkpoint of its own; None for a phase that
            begins with the model's weights alone.

    Returns:
        the averaged weights by name, empty where the phase keeps no average.

    Raises:
        DivergenceError: training leaves the numbers that can be computed with, and going back does not help.
        MachineError: memory ran out, and micro-batches cannot be smaller.
    """
    folder = ranks.folder(folder)
    trainable = _build_trainable(model, phase, seed, folder, begin)  # before layers are compiled: it may copy the model
    with (
        compiled(model, machine.compile),
        enough_memory(machine.device, f"phase {phase.name!r}, {folder}"),
        GracefulShutdown(echo=float(ranks.is_synchronous)) as shutdown,
    ):
        task = Task(
            trainable=trainable,
            phase=phase,
            reader=reader,
            machine=machine,
            folder=folder,
            seed=seed,
            report=report,
            ranks=ranks,
            incidents=Incidents(folder, writes=ranks.writes),
            micro_batches=MicroBatches(machine, phase, folder, ranks, report),
            shutdown=shutdown,
            keep=keep,
            kept=kept,
            begin=begin,
        )
        while True:
            try:
                return Trainer(task).train(watch, measure)
            except LossSpike as spike:
                last = _last_checkpoint(task).progress
                task.incidents.add(spike, last, phase.guard.max_rollbacks, f"phase {phase.name!r}, {folder}")
                back = f"back to step {last.step:,}, on from there without the text since"
                report(f"step {spike.step:,}: {spike.why}; {back}")
            except StepOutOfMemory as refused:
                if ranks.is_synchronous:
                    raise task.micro_batches.no_room(refused.step, refused.stage) from refused
                last = _last_checkpoint(task).progress
                task.micro_batches.halve_micro_batch(refused.step, refused.stage, since=last.step)
            give_back(machine.device)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a phase is trained from: the same, however often training goes back to a checkpoint."""

    trainable: Trainable
    phase: Phase
    reader: Reader
    machine: Machine
    folder: Path
    seed: int
    report: Report
    ranks: Ranks
    incidents: Incidents
    micro_batches: MicroBatches
    shutdown: GracefulShutdown
    keep: Path | None = None
    kept: Path | None = None
    begin: Callable[[], Checkpoint] | None = None


class Trainer:
    """Trains a phase from its newest checkpoint on: all that changes, and the step that changes it."""

    def __init__(self, task: Task):
        phase, machine, ranks, trainable = task.phase, task.machine, task.ranks, task.trainable
        self.task, self.plan, self.trainable = task, StepPlan(phase), trainable
        precision = precision_of(machine.device, machine.precision, trainable)
        self.state = State(
            trainable=trainable,
            optimizer=phase.optimizer.build(trainable),
            average=phase.ema.build(trainable),
            precision=precision,
            guard=phase.guard.build(phase.clip),
        )
        self.passes = forward_backward_of(machine.compile, trainable, precision, ranks)
        self.update = optimizer_step_of(machine.compile, self.state.optimizer, ranks)
        self.loader = BatchLoader(phase, task.reader, machine.device, ranks, task.incidents, task.micro_batches)
        self.forward_backward = StepRunner(self.passes, self.state, self.loader, task.micro_batches, machine, ranks)
        self.is_leaving = False
        """Whether a signal told a rank, in the last step, to leave."""
        self._checked: set[tuple[int, int]] = set()
        found = checkpoint.newest(task.folder, task.report)
        self.is_new = found is None
        self.reached = Progress() if found is None else found.progress
        if found is None and task.begin is not None:
            found = _resumed(task.begin(), trainable)
            before = found.progress.before + found.progress.step
            self.reached = Progress(cursor=found.progress.cursor, before=before)
        if found is not None:
            self.state.load(found.tensors)

    def train(self, watch: Callable[[int], MetricsLogger], measure: Measure) -> dict[str, Tensor]:
        """Train to the end of the phase, and return the averaged weights there.

        Raises:
            LossSpike: a step was not taken.
            StepOutOfMemory: a step could not be taken.
        """
        task, phase, ranks, plan = self.task, self.task.phase, self.task.ranks, self.plan
        with (
            AsyncCheckpointWriter(task.folder, writes=ranks.writes) as saver,
            watch(self.reached.step) as logger,
        ):
            if self.is_new:
                saver.save(self.checkpoint())
            while self.reached.step < plan.steps:
                before, stage = self.reached.tokens, plan.stage(self.reached.step)
                numbers = self.train_step()
                if numbers is None:
                    continue
                step, tokens = self.reached.step, self.reached.tokens
                headline = phase.stages[stage].objective.headline
                logger.log_step(step, tokens, tokens - before, numbers, headline)
                if plan.is_due(phase.measure_every, step):
                    logger.log_validation(step, tokens, self.validate(measure, stage), headline)
                saver.check()
                if task.keep is not None and step == plan.stable_until:
                    saver.save(self.checkpoint(), task.keep)  # first: it is there once a later one is
                if task.kept is not None and step in plan.kept_steps:
                    saver.save(self.checkpoint(), task.kept)
                if plan.is_due(phase.save_every, step) or self.is_leaving:
                    saver.save(self.checkpoint())
                if self.is_leaving and step < plan.steps:
                    saver.wait()
                    ranks.barrier()  # where one leaves, torchrun ends the others
                    task.report(f"step {step:,} of {plan.steps:,} is saved; the same command resumes from there")
                    task.shutdown.exit()
        averaged = self.state.average.tensors
        return {name: value for name, value in averaged.items() if not name.startswith(OWNED)}

    def train_step(self) -> dict[str, float] | None:
        """Take one step: forward and backward, reduce, clip, check, update.

        Returns:
            the numbers of the step; None where it was skipped, which only takes its text.

        Raises:
            LossSpike: it must not be taken; the weights are those before it.
            StepOutOfMemory: memory ran out where it was half taken.
            MachineError: memory ran out, and micro-batches cannot be smaller.
        """
        phase, state, step, ranks = self.task.phase, self.state, self.reached.step, self.task.ranks
        inputs = self._inputs(step)
        stage, variant = inputs.stage, inputs.variant
        multiplier = phase.schedule(step, self.plan.steps)
        set_multiplier(state.optimizer, multiplier)

        rows, parts = self.forward_backward(inputs, self.reached.cursor)
        self._check_gradients(stage, variant)
        if step + 1 < self.plan.steps and self.plan.stage(step + 1) == stage:
            self.loader.prefetch(step + 1, stage, rows.after)  # while the device computes
        with during_update(step, stage):
            read = _on_host(parts | state.precision.clip(phase.clip))
            numbers = read | self._agreed(step, {name: read[name] for name in parts})
            norm = numbers["grad_norm"]
            if isfinite(norm) or not state.precision.skips_nonfinite:
                why = state.guard.check(stage, variant, numbers[phase.stages[stage].objective.headline], norm)
                if why is not None:
                    raise LossSpike(why, step + 1, rows.after)
            where = f"step {step + 1} of phase {phase.name!r}, {self.task.folder}"
            taken = state.precision.step(partial(self.update, variant), norm, where)
            state.optimizer.zero_grad()
            if taken:
                state.average.update(self.trainable.active(stage, variant), self.reached.before + step + 1)
                ranks.settle(step + 1, self.plan.steps, self.trainable)
        tokens = self.reached.tokens + self.plan.tokens(stage)
        self.reached = replace(self.reached, step=step + taken, cursor=rows.after, tokens=tokens)
        if not taken:
            return None
        numbers |= {"positions": self.plan.positions_until(step + 1)}
        return numbers | {"lr": multiplier} | state.precision.metrics() | self.task.incidents.numbers(step + 1)

    def _inputs(self, step: int) -> StepInputs:
        stage, seed = self.plan.stage(step), self.task.seed
        variants = self.task.ranks.variants(step, self.trainable.objective(stage).variants)
        return StepInputs(
            step=step,
            stage=stage,
            variant=draw_variant(seed, step, variants),
            progress=step / self.plan.steps,
            seed=seed,
        )

    def _agreed(self, step: int, parts: dict[str, float]) -> dict[str, float]:
        """The losses of all ranks together."""
        numbers = self.task.ranks.agree(step, parts | {"leaving": float(self.task.shutdown.requested)})
        self.is_leaving = numbers.pop("leaving") > 0
        return numbers

    def _check_gradients(self, stage: int, variant: int) -> None:
        """Report parameters that get no gradient although they should be trained, once for each variant."""
        if (stage, variant) in self._checked:
            return
        self._checked.add((stage, variant))
        idle = [name for name, one in self.trainable.active(stage, variant).items() if one.grad is None]
        if idle:
            more = f" and {len(idle) - 3} more" if len(idle) > 3 else ""
            self.task.report(f"no gradient reaches {', '.join(idle[:3])}{more}: what is active stays as it is")

    def validate(self, measure: Measure, stage: int) -> dict[str, float | None]:
        """Return held-out numbers of a stage's objective; captured graphs make room for that if they have to."""
        headline = self.task.phase.stages[stage].objective.headline
        measured = partial(measure, self.trainable.objective(stage), headline)
        try:
            return validate_ema_and_live(measured, self.trainable, self.state.average)
        except RuntimeError as error:
            if not ran_out(error):
                raise
        self.passes.release_graphs()
        give_back(self.task.machine.device)
        return validate_ema_and_live(measured, self.trainable, self.state.average)

    def checkpoint(self) -> Checkpoint:
        """Return all that training needs to resume from here."""
        return Checkpoint(progress=self.reached, tensors=self.state.tensors())


def _build_trainable(
    model: LanguageModel, phase: Phase, seed: int, folder: Path, begin: Callable[[], Checkpoint] | None
) -> Trainable:
    """The model and the objectives of the phase, built on the weights that it begins with, whatever it resumes."""
    objectives = [stage.objective for stage in phase.stages]
    if begin is None:
        return Trainable.of_phase(model, objectives, seed)
    if checkpoint.has_any(folder):
        trainable = Trainable.of_phase(model, objectives, seed)
        if not trainable.keeps_first_weights:
            return trainable
    copy_weights(model, begin().tensors["weights"])
    return Trainable.of_phase(model, objectives, seed)


def _resumed(state: Checkpoint, trainable: Trainable) -> Checkpoint:
    """The state of the phase before, without what its objectives owned where this phase has others."""
    if state.tensors.get("objectives", {}).keys() == trainable.owned_tensors().keys():
        return state
    kinds = {
        kind: {name: one for name, one in tensors.items() if not name.startswith(OWNED)}
        for kind, tensors in state.tensors.items()
    }
    return replace(state, tensors=kinds | {"objectives": trainable.owned_tensors()})


def _on_host(values: dict[str, Tensor]) -> dict[str, float]:
    """Scalars as numbers, in one transfer: the only time in a step that the device has to have caught up."""
    return dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))


def _last_checkpoint(task: Task) -> Checkpoint:
    """Where training goes back to, with nothing left of the step that it did not take."""
    task.trainable.zero_grad()
    task.ranks.barrier()  # the last checkpoint is written by now
    last = checkpoint.newest(task.folder, task.report)
    assert last is not None, "training begins with one"
    return last
