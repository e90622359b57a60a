"""The loop: fetch, forward and backward, reduce, clip, check, step. The rest is built before it or watches it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from lilliput.data.batch import Cursor
from lilliput.model import LanguageModel, copy_weights
from lilliput.objectives.noise import draw_variant
from lilliput.optim.optimizer import load_state_tensors, set_multiplier, state_tensors
from lilliput.train import checkpoint
from lilliput.train.batches import BatchLoader
from lilliput.train.begin import Begin, build_trainable, state_for
from lilliput.train.checkpoint import EXCHANGE, AsyncCheckpointWriter, Checkpoint, Progress
from lilliput.train.compile import compiled
from lilliput.train.cuda_graphs import forward_backward_of, optimizer_step_of
from lilliput.train.forward_backward import StepInputs
from lilliput.train.gather import gather, places_to_merge
from lilliput.train.machine import Machine
from lilliput.train.memory import enough_memory, give_back
from lilliput.train.metrics_log import MetricsLogger
from lilliput.train.micro_batches import MicroBatches, StepOutOfMemory, during_update
from lilliput.train.out_of_memory import OutOfMemoryRetry
from lilliput.train.phase import Phase, Reader, StepPlan
from lilliput.train.precision import precision_of
from lilliput.train.ranks import OneRank, Ranks
from lilliput.train.rollback import Incidents, LossSpike
from lilliput.train.samples import WriteSamples
from lilliput.train.signals import GracefulShutdown
from lilliput.train.trainable import OWNED
from lilliput.train.validation import Measure, Measurement, validate_ema_and_live


class Trainer:
    """Trains a model in place through a phase, from its newest checkpoint on."""

    def __init__(
        self,
        model: LanguageModel,
        phase: Phase,
        reader: Reader,
        machine: Machine,
        *,
        folder: Path,
        seed: int,
        report: Callable[[str], None],
        ranks: Ranks = OneRank(),
        before_decay: Path | None = None,
        kept: Path | None = None,
        begin: Begin | None = None,
        write_samples: WriteSamples | None = None,
    ):
        """Build the phase's objectives around the model; `restore` builds what training changes.

        Args:
            model: on the machine's device, with the weights the phase begins with.
            phase: to be trained.
            reader: of the training data.
            machine: resolved.
            folder: of checkpoints.
            seed: of the phase's randomness; it and the cursor decide everything.
            report: called with one line for each skipped checkpoint, rollback, smaller micro-batch and shutdown.
            ranks: of the machine's exchange, joined.
            before_decay: the folder for a copy of the state before the decay, to resume from later; None for none.
            kept: the folder of the checkpoints of `Phase.keep`; None for none.
            begin: returns the state to begin with where there is no checkpoint; None for the model's weights alone.
            write_samples: lets the model write at each measurement; None for no samples.
        """
        self.phase, self.plan, self.reader, self.machine = phase, StepPlan(phase), reader, machine
        self.folder, self.seed, self.report = ranks.folder(folder), seed, report
        self.before_decay, self.kept, self.write_samples = before_decay, kept, write_samples
        self.begin = None if begin is None else cache(begin)  # objectives and `restore` ask for it: read it once
        # Before layers are compiled: an objective may copy the model.
        self.trainable = build_trainable(model, phase, seed, self.folder, self.begin)
        ended = checkpoint.steps_in(self.folder)[-1:] == [self.plan.steps]
        self.ranks = ranks.of_phase(self.plan, self.trainable, report, folder=self.folder, ended=ended)
        self.incidents = Incidents(self.folder, writes=self.ranks.writes)
        self.micro_batches = MicroBatches(machine, phase, self.folder, self.ranks, report)
        self.shutdown = GracefulShutdown(echo=float(self.ranks.count > 1))

    def restore(self) -> None:
        """Build all that training changes, as in the newest checkpoint or, without one, as the phase begins."""
        machine, ranks, phase, trainable = self.machine, self.ranks, self.phase, self.trainable
        self.optimizer = phase.optimizer.build(trainable)
        self.average = phase.ema.build(trainable)
        self.precision = precision_of(machine.device, machine.precision, trainable)
        self.guard = phase.guard.build(phase.clip)
        self.forward_backward = forward_backward_of(machine.compile, trainable, self.precision, ranks)
        self.update = optimizer_step_of(machine.compile, self.optimizer, ranks)
        self.loader = BatchLoader(phase, self.reader, machine.device, ranks, self.incidents, self.micro_batches)
        self.retry = OutOfMemoryRetry(
            trainable, self.optimizer, self.precision, self.forward_backward, self.loader, self.micro_batches, ranks
        )
        self.is_leaving = False  # whether, as of the last step, a signal told a rank to leave
        found = checkpoint.resumable(self.folder, ranks.resume_step, self.report)
        self.is_new, self.progress = found is None, Progress() if found is None else found.progress
        if found is None and self.begin is not None:
            found = state_for(trainable, self.begin())
            before = found.progress.before + found.progress.step
            self.progress = Progress(cursor=found.progress.cursor, before=before)
        if found is not None:
            self._load(found.tensors)
        ranks.load({} if found is None else found.tensors.get(EXCHANGE, {}))
        if self.begin is not None:
            self.begin.cache_clear()  # a checkpoint in memory

    def train(self, watch: Callable[[int], MetricsLogger], measure: Measure) -> dict[str, Tensor]:
        """Train to the end of the phase; if a step cannot be taken, go back to the last checkpoint.

        Args:
            watch: returns the logger, given the step that training begins at.
            measure: returns held-out numbers of an objective, for averaged and for live weights if there is an average.

        Returns:
            the averaged weights by name, empty if the phase has no average.

        Raises:
            DivergenceError: the loss or the gradients are not finite, or too large, and going back does not help.
            MachineError: memory ran out, and micro-batches cannot be smaller.
        """
        machine, model = self.machine, self.trainable.model
        with compiled(model, machine.compile), enough_memory(machine.device, self._where()), self.shutdown:
            while True:
                self.restore()
                try:
                    self.train_steps(watch, measure)
                    break
                except LossSpike as spike:
                    last = self._last_checkpoint()
                    self.incidents.add(spike, last, self.phase.guard.max_rollbacks, self._where())
                    back = f"back to step {last.step:,}, leaving out the text since"
                    self.report(f"step {spike.step:,}: {spike.why}; {back}")
                except StepOutOfMemory as refused:
                    if self.ranks.is_synchronous:
                        raise self.micro_batches.no_room(refused.step, refused.stage) from refused
                    last = self._last_checkpoint()
                    self.micro_batches.halve_micro_batch(refused.step, refused.stage, since=last.step)
                self.release()
        return {name: value for name, value in self.average.tensors.items() if not name.startswith(OWNED)}

    def release(self) -> None:
        """Release the memory of what `restore` rebuilds."""
        self.trainable.zero_grad()
        self.optimizer.state.clear()
        self._release_graphs()

    def _release_graphs(self) -> None:
        self.forward_backward.release_graphs()
        give_back(self.machine.device)

    def train_steps(self, watch: Callable[[int], MetricsLogger], measure: Measure) -> None:
        """Take the remaining steps; measure and save when the phase says so.

        Raises:
            LossSpike: the guard refused a step.
            StepOutOfMemory: memory ran out in an update.
        """
        phase, plan = self.phase, self.plan
        with (
            AsyncCheckpointWriter(self.folder, writes=self.ranks.writes) as saver,
            watch(self.progress.step) as logger,
        ):
            if self.is_new:
                saver.save(self.checkpoint())
            while self.progress.step < plan.steps:
                before, stage = self.progress, plan.stage(self.progress.step)
                numbers = self.train_step()
                if self.progress.step == before.step:
                    continue
                step, tokens = self.progress.step, self.progress.tokens
                headline = phase.stages[stage].objective.headline
                if numbers is not None:
                    logger.log_step(step, tokens, tokens - before.tokens, numbers, headline)
                if plan.is_due(phase.measure_every, step):
                    logger.log_validation(step, tokens, self.validate(measure, stage, headline), headline)
                saver.check()
                if self.before_decay is not None and step == plan.stable_until:
                    saver.save(self.checkpoint(), self.before_decay)  # first: any later one implies this one
                if self.kept is not None and step in plan.kept_steps:
                    saver.save(self.checkpoint(), self.kept)
                if plan.is_due(phase.save_every, step) or self.ranks.is_outer(step) or self.is_leaving:
                    saver.save(self.checkpoint())
                if self.is_leaving and step < plan.steps:
                    saver.wait()
                    self.ranks.barrier()  # once one leaves, torchrun ends the others
                    self.report(f"step {step:,} of {plan.steps:,} is saved; the same command resumes from there")
                    self.shutdown.exit()
            saver.wait()
            if not all(self.ranks.owns(*each) for each in self.trainable.variants):
                places = places_to_merge(self.plan, self.folder, self.before_decay, self.kept)
                self._load(gather(self.ranks, phase.name, self.trainable, places, logger).tensors)

    def train_step(self) -> dict[str, float] | None:
        """Take one step: fetch, forward and backward, reduce, clip, check, step.

        Returns:
            the numbers of the step; None if it was skipped, which only uses up its text, or is one that other ranks
            take, which counts and uses up its text.

        Raises:
            LossSpike: the guard refused the step; weights are unchanged.
            StepOutOfMemory: memory ran out during the update.
            MachineError: memory ran out, and micro-batches cannot be smaller.
        """
        inputs, cursor = self._inputs(self.progress.step), self.progress.cursor
        step, stage, variant = inputs.step, inputs.stage, inputs.variant
        if not self.ranks.owns(stage, variant):
            self._pass_over(step, stage)
            return None
        multiplier = self.phase.schedule(step, self.plan.steps)
        set_multiplier(self.optimizer, multiplier)
        while True:  # once, and again in smaller micro-batches where memory runs out
            with self.retry.attempt(inputs, cursor):
                rows = self.loader.read(step, stage, cursor)
                losses = self.forward_backward(inputs, rows.batches, rows.denominator)  # the last pass reduces
                break
        self.trainable.keep_active(stage, variant)
        self.trainable.report_idle(stage, variant, self.report)
        self.loader.prefetch(step + 1, stage, rows.after, takes=self._takes)
        with during_update(step, stage):
            read = _on_host(losses | self.precision.clip(self.phase.clip, self.ranks.grad_norm))
            numbers = read | self._agreed(step, {name: read[name] for name in losses})
            self._check_numbers(inputs, numbers, rows.after)
            update = partial(self.update, variant)
            taken = self.precision.step(update, numbers["grad_norm"], f"step {step + 1} of {self._where()}")
            self.optimizer.zero_grad()
            if taken and (steps := self.ranks.settle(step + 1, self.plan.steps, self.trainable)):
                is_outer, active = self.ranks.is_outer(step + 1), self.trainable.active(stage, variant)
                moved = dict(self.trainable.named_parameters()) if is_outer else active
                self.average.update(moved, self.progress.before + step + 1, steps)
        self._count(step + taken, stage, rows.after)
        if not taken:
            return None
        numbers |= {"lr": multiplier, "positions": self.plan.positions_until(step + 1)}
        numbers |= self.precision.metrics() | self.ranks.traffic()
        return numbers | self.incidents.numbers(step + 1)

    def _inputs(self, step: int) -> StepInputs:
        stage, seed = self.plan.stage(step), self.seed
        own = self.ranks.candidates(stage, range(self.trainable.objective(stage).variants))
        variant, progress = own[draw_variant(seed, step, len(own))], step / self.plan.steps
        return StepInputs(step=step, stage=stage, variant=variant, progress=progress, seed=seed)

    def _pass_over(self, step: int, stage: int) -> None:
        """Let other ranks take a step."""
        self._agreed(step, {})
        self.ranks.settle(step + 1, self.plan.steps, self.trainable)
        self._count(step + 1, stage, self.loader.skip(stage, self.progress.cursor))

    def _count(self, step: int, stage: int, cursor: Cursor) -> None:
        tokens = self.progress.tokens + self.plan.tokens(stage)
        self.progress = replace(self.progress, step=step, cursor=cursor, tokens=tokens)

    def _takes(self, step: int, stage: int) -> bool:
        return self.ranks.owns(stage, self._inputs(step).variant)

    def _agreed(self, step: int, losses: dict[str, float]) -> dict[str, float]:
        """Agree with all ranks on losses and leaving."""
        numbers = self.ranks.agree(step, losses | {"leaving": float(self.shutdown.requested)})
        self.is_leaving = numbers.pop("leaving") > 0
        return numbers

    def _check_numbers(self, inputs: StepInputs, numbers: dict[str, float], after: Cursor) -> None:
        """Refuse a step whose loss or gradients are unlike those before, unless precision skips it anyway."""
        norm, stage = numbers["grad_norm"], inputs.stage
        if not isfinite(norm) and self.precision.skips_nonfinite:
            return
        kind = draw_variant(self.seed, inputs.step, self.trainable.objective(stage).variants)  # the same on all ranks
        why = self.guard.check(stage, kind, numbers[self.phase.stages[stage].objective.headline], norm)
        if why is not None:
            raise LossSpike(why, inputs.step + 1, after)

    def validate(self, measure: Measure, stage: int, headline: str) -> Measurement:
        """Return what is found by a stage's objective; captured graphs are released if it needs room."""
        measured = partial(measure, self.trainable.objective(stage), headline)
        return validate_ema_and_live(measured, self.write_samples, self.trainable, self.average, self._release_graphs)

    def checkpoint(self) -> Checkpoint:
        """Return all that training needs to resume from here: the tensors themselves, not copies."""
        tensors = {
            "weights": dict(self.trainable.model.named_parameters()),
            "objectives": self.trainable.owned_tensors(),
            "average": self.average.tensors,
            "optimizer": state_tensors(self.optimizer, self.trainable),
            "precision": self.precision.tensors(),
            "guard": self.guard.tensors(),
        }
        exchange = self.ranks.tensors()
        return Checkpoint(progress=self.progress, tensors=tensors | ({EXCHANGE: exchange} if exchange else {}))

    def _load(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        copy_weights(self.trainable.model, tensors.get("weights", dict(self.trainable.model.named_parameters())))
        self.trainable.load_owned(tensors.get("objectives", {}))
        load_state_tensors(self.optimizer, self.trainable, dict(tensors["optimizer"]))
        for name, value in self.average.tensors.items():
            value.copy_(tensors.get("average", self.average.tensors)[name])
        self.precision.load(dict(tensors.get("precision", {})))
        self.guard.load(dict(tensors.get("guard", {})))

    def _last_checkpoint(self) -> Progress:
        """Return the progress of the checkpoint that training goes back to."""
        self.ranks.barrier()  # the last checkpoint is written by now
        last = checkpoint.newest(self.folder, self.report)
        assert last is not None, "training begins with one"
        return last.progress

    def _where(self) -> str:
        return f"phase {self.phase.name!r}, {self.folder}"


def _on_host(values: dict[str, Tensor]) -> dict[str, float]:
    """Return scalars as numbers, in one transfer: the only wait for the device in a step."""
    return dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))
