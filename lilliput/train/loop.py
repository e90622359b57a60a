"""The loop: loss, exchange, step, advance. Everything else is built before it or watches it."""

from collections.abc import Callable
from math import isfinite
from pathlib import Path

import torch

from lilliput.data.batch import Batch, Cursor
from lilliput.model import LanguageModel
from lilliput.objectives.objective import charged, step_generator
from lilliput.optim.optimizer import set_multiplier
from lilliput.train import checkpoint
from lilliput.train.checkpoint import Checkpoint
from lilliput.train.checkpoint import Progress as Reached
from lilliput.train.compiled import compiled
from lilliput.train.exchange import OneWorker, Workers
from lilliput.train.heldout import Measure, on_both
from lilliput.train.incidents import Incident, Incidents
from lilliput.train.leaving import Leaving
from lilliput.train.machine import Machine
from lilliput.train.passes import passes_of
from lilliput.train.phase import Phase, Plan, Reader
from lilliput.train.precision import precision_of
from lilliput.train.saver import Saver
from lilliput.train.state import State
from lilliput.train.watch import Watch


def train_phase(
    model: LanguageModel,
    phase: Phase,
    reader: Reader,
    machine: Machine,
    *,
    folder: Path,
    seed: int,
    watch: Callable[[int], Watch],
    measure: Measure,
    report: Callable[[str], None],
    workers: Workers = OneWorker(),
) -> dict[str, torch.Tensor]:
    """Train `model` in place through a phase, from its newest checkpoint on.

    Args:
        model: on the machine's device, with the weights the phase begins with.
        phase: what to do.
        reader: the training data.
        machine: settled.
        folder: where checkpoints live.
        seed: of the phase's randomness; with the cursor it decides everything.
        watch: makes the observer, given the step that training begins at.
        measure: held-out numbers of a model, taken with averaged and with live weights where there is an average.
        report: told of damaged checkpoints that were passed over, of incidents, and where a signal made it leave.
        workers: of the machine's exchange, joined; only the first one writes.

    Returns:
        the averaged weights by name, empty where the phase keeps no average.

    Raises:
        DivergenceError: training leaves the numbers that can be computed with, and going back does not help.
    """
    incidents = Incidents(folder, writes=workers.rank == 0)
    with compiled(model, machine.compile), Leaving(echo=float(workers.count > 1)) as leaving:
        while True:
            try:
                return _stretch(
                    model, phase, reader, machine, folder, seed, watch, measure, report, workers, incidents, leaving
                )
            except Incident as incident:
                model.zero_grad()
                workers.wait()  # the last checkpoint is written by now
                last = checkpoint.newest(folder, report)
                assert last is not None, "a stretch begins with one"
                incidents.add(incident, last.progress, phase.guard.most, f"phase {phase.name!r}, {folder}")
                back = f"back to step {last.progress.step:,}, on from there without the text since"
                report(f"step {incident.step:,}: {incident.why}; {back}")


def _stretch(
    model: LanguageModel,
    phase: Phase,
    reader: Reader,
    machine: Machine,
    folder: Path,
    seed: int,
    watch: Callable[[int], Watch],
    measure: Measure,
    report: Callable[[str], None],
    workers: Workers,
    incidents: Incidents,
    leaving: Leaving,
) -> dict[str, torch.Tensor]:
    """From the newest checkpoint to the end of the phase, or to an incident.

    Raises:
        Incident: a step was not taken; the weights are those before it.
    """
    plan = Plan(phase)
    objectives = [stage.objective.build(model) for stage in phase.stages]
    optimizer = phase.optimizer.build(model)
    average = phase.ema.build(model)
    precision = precision_of(machine.device, machine.precision, model)
    passes = passes_of(machine.compile, objectives, precision, model, workers)
    guard = phase.guard.build(phase.clip)
    state = State(model=model, optimizer=optimizer, average=average, precision=precision, guard=guard)
    found = checkpoint.newest(folder, report)
    reached = Reached() if found is None else found.progress
    if found is not None:
        state.load(found.tensors)

    def step_batches(stage: int, cursor: Cursor) -> tuple[list[Batch], float, Cursor]:
        """This worker's micro-batches of a step, the target weights of the whole step, and the cursor after it."""
        objective, batches, whole = phase.stages[stage].objective, [], 0.0
        cursor = incidents.skip(cursor)
        for worker, rows in machine.shares(plan.rows, phase.length, workers.count):
            length = objective.row_length(phase.length)
            batch, cursor = reader.read(cursor, rows, length, objective.tokens_per_position)
            whole += charged(batch, objective.tokens_per_position)
            batches += [batch] if worker == workers.rank else []
        return batches, whole, cursor

    ahead = None
    with Saver(folder, writes=workers.rank == 0) as saver, watch(reached.step) as observer:
        if found is None:
            saver.save(Checkpoint(progress=reached, tensors=state.tensors()))
        while reached.step < plan.steps:
            step = reached.step
            stage = plan.stage(step)
            size = phase.stages[stage].objective.tokens_per_position
            multiplier = phase.schedule(step, plan.steps)
            set_multiplier(optimizer, multiplier)
            generator = step_generator(seed, step, torch.device(machine.device))

            batches, whole, cursor = ahead or step_batches(stage, reached.cursor)
            parts = passes(stage, batches, whole, generator)
            goes_on = step + 1 < plan.steps and plan.stage(step + 1) == stage
            ahead = step_batches(stage, cursor) if goes_on else None  # while the device computes
            norm = precision.clip(phase.clip)
            numbers = {name: float(value) for name, value in parts.items()} | {"leaving": float(leaving.asked)}
            numbers = workers.sum(numbers) | {"grad_norm": float(norm)}
            told = numbers.pop("leaving") > 0
            if isfinite(numbers["grad_norm"]) or not precision.skips:
                why = guard.judge(stage, numbers["cross_entropy"], numbers["grad_norm"])
                if why is not None:
                    raise Incident(why, step + 1, cursor)
            taken = precision.step(optimizer, norm, f"step {step + 1} of phase {phase.name!r}, {folder}")
            optimizer.zero_grad()
            read = plan.rows * phase.length * size
            reached = Reached(step=step + taken, cursor=cursor, tokens=reached.tokens + read)
            if not taken:
                continue
            average.update(model, step + 1)

            numbers |= {"lr": multiplier} | precision.numbers() | incidents.numbers(step + 1)
            observer.see(step + 1, reached.tokens, read, numbers)
            if plan.is_due(phase.measure_every, step + 1):
                observer.measured(step + 1, on_both(measure, model, average))
            saver.check()
            if plan.is_due(phase.save_every, step + 1) or told:
                saver.save(Checkpoint(progress=reached, tensors=state.tensors()))
            if told and reached.step < plan.steps:
                saver.wait()
                workers.wait()  # where one leaves, torchrun ends the others
                report(f"step {reached.step:,} of {plan.steps:,} is saved; it goes on from there")
                leaving.leave()
    return average.tensors
