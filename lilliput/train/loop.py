"""The loop: loss, exchange, step, advance. Everything else is built before it or watches it."""

from collections.abc import Callable
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
from lilliput.train.leaving import Leaving
from lilliput.train.machine import Machine
from lilliput.train.passes import passes_of
from lilliput.train.phase import Phase, Plan, Reader
from lilliput.train.precision import precision_of
from lilliput.train.saver import Saver
from lilliput.train.state import State
from lilliput.train.watch import Watch

Measure = Callable[[LanguageModel], dict[str, float]]


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
        measure: held-out numbers of a model, taken with averaged weights where there is an average.
        report: told of damaged checkpoints that were passed over, and where a signal made it leave.

    Returns:
        the averaged weights by name, empty where the phase keeps no average.
    """
    plan = Plan(phase)
    objectives = [stage.objective.build(model) for stage in phase.stages]
    optimizer = phase.optimizer.build(model)
    average = phase.ema.build(model)
    precision = precision_of(machine.device, machine.precision, model)
    passes = passes_of(machine.compile, objectives, precision, model)
    state = State(model=model, optimizer=optimizer, average=average, precision=precision)
    reached = Reached()
    found = checkpoint.newest(folder, report)
    if found is not None:
        state.load(found.tensors)
        reached = found.progress

    def step_batches(stage: int, cursor: Cursor) -> tuple[list[Batch], float, Cursor]:
        """The micro-batches of a step, the sum of their target weights, and the cursor after them."""
        objective, batches = phase.stages[stage].objective, []
        for rows in machine.micro_rows(plan.rows, phase.length):
            length = objective.row_length(phase.length)
            batch, cursor = reader.read(cursor, rows, length, objective.tokens_per_position)
            batches.append(batch)
        return batches, sum(charged(batch, objective.tokens_per_position) for batch in batches), cursor

    ahead = None
    with (
        compiled(model, machine.compile),
        Leaving() as leaving,
        Saver(folder) as saver,
        watch(reached.step) as observer,
    ):
        while reached.step < plan.steps:
            step = reached.step
            stage = plan.stage(step)
            size = phase.stages[stage].objective.tokens_per_position
            multiplier = phase.schedule(step, plan.steps)
            set_multiplier(optimizer, multiplier)
            generator = step_generator(seed, step, torch.device(machine.device))

            batches, mine, cursor = ahead or step_batches(stage, reached.cursor)
            parts = passes(stage, batches, machine.exchange.total(mine), generator)
            goes_on = step + 1 < plan.steps and plan.stage(step + 1) == stage
            ahead = step_batches(stage, cursor) if goes_on else None  # while the device computes
            machine.exchange.share(model)
            norm = precision.clip(phase.clip)
            taken = precision.step(optimizer, norm, f"step {step + 1} of phase {phase.name!r}, {folder}")
            optimizer.zero_grad()
            read = plan.rows * phase.length * size
            reached = Reached(step=step + taken, cursor=cursor, tokens=reached.tokens + read)
            if not taken:
                continue
            average.update(model, step + 1)

            numbers = {name: float(value) for name, value in parts.items()}
            numbers |= {"grad_norm": float(norm), "lr": multiplier} | precision.numbers()
            observer.see(step + 1, reached.tokens, read, numbers)
            if plan.is_due(phase.measure_every, step + 1):
                with average.applied(model):
                    observer.measured(step + 1, measure(model))
            saver.check()
            if plan.is_due(phase.save_every, step + 1) or leaving.asked:
                machine.exchange.settle(model)
                saver.save(Checkpoint(progress=reached, tensors=state.tensors()))
            if leaving.asked and reached.step < plan.steps:
                saver.wait()
                report(f"step {reached.step:,} of {plan.steps:,} is saved; it goes on from there")
                leaving.leave()
    return average.tensors
