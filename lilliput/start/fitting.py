"""Fits the length of phases to the available time, from the measured cost of a step."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from lilliput.base.errors import MachineError
from lilliput.base.units import Share, Tokens
from lilliput.plan.cost import Cost
from lilliput.recipe import Recipe
from lilliput.train.phase import Phase, StepPlan, tokens_per_position
from lilliput.train.validation import MAX_POSITIONS

ENOUGH_STEPS = 500
"""Steps below which batches are halved, as far as `LEAST_ROWS`: steps teach a small model more than rows."""
LEAST_ROWS = 16
LEAST_STEPS = 20
"""Fewest steps of a phase that count as training."""
FORWARD = 1 / 3
"""Share of the forward pass in the time of forward and backward."""
MEASURING = 0.2
"""The share of a phase's time that held-out measurements may take."""


class Training(NamedTuple):
    """A model that is trained, and what its phases were measured to cost, by index in the timeline."""

    recipe: Recipe
    costs: Mapping[int, Cost]


class _Seconds(NamedTuple):
    """Seconds of a phase, in all trainings together."""

    row: float
    """Forward and backward."""
    update: float
    measurement: float
    """Seconds to measure held-out text."""

    def step(self, rows: int) -> float:
        return rows * self.row + self.update


def fitted(trainings: Sequence[Training], tokens: Mapping[str, int | None], seconds: float) -> dict[str, Phase]:
    """The phases of a recipe, by name, as long as some time allows, in the proportion of time that they had.

    Args:
        trainings: one after another; their recipes differ in the model alone.
        tokens: of each corpus, about; None for one of unknown size.
        seconds: of all phases of all trainings, held-out measurements included.

    Returns:
        phases with other `tokens`; with smaller batches where steps would be few, and with fewer measurements where
        these would take too much of the time.

    Raises:
        MachineError: a phase has no time for a training.
    """
    recipe = trainings[0].recipe
    phases = {index: entry for index, entry in enumerate(recipe.timeline) if isinstance(entry, Phase)}
    costs = {index: _seconds(recipe, phase, index, trainings, tokens) for index, phase in phases.items()}
    whole = {index: StepPlan(phase).steps * costs[index].step(StepPlan(phase).rows) for index, phase in phases.items()}
    shares = {index: each / sum(whole.values()) for index, each in whole.items()}
    _refuse_too_short([(phase, costs[index], shares[index]) for index, phase in phases.items()], seconds)
    return {phase.name: _within(phase, costs[index], seconds * shares[index]) for index, phase in phases.items()}


def _seconds(
    recipe: Recipe, phase: Phase, index: int, trainings: Sequence[Training], tokens: Mapping[str, int | None]
) -> _Seconds:
    row = update = 0.0
    for training in trainings:
        cost = training.costs[index]
        for stage, one in zip(phase.stages, cost.passes, strict=True):
            row += stage.share * one.seconds / one.rows
        update += 0.0 if cost.update is None else cost.update.seconds
    known = (tokens.get(name) for name in phase.data.corpora)
    held_out = (MAX_POSITIONS if size is None else min(MAX_POSITIONS, size * recipe.split.share) for size in known)
    return _Seconds(row, update, sum(held_out) / phase.length * row * FORWARD)


def _refuse_too_short(phases: Sequence[tuple[Phase, _Seconds, float]], seconds: float) -> None:
    """Refuse a time in which one of the phases, with its share of it, has no training; the hint is enough for all."""
    least = {phase.name: _least(phase, cost) / share for phase, cost, share in phases}
    name = max(least, key=least.__getitem__)
    if seconds < least[name]:
        raise MachineError(
            f"{seconds / 60:,.3g} minutes are too short: {name!r} would not get {LEAST_STEPS} steps here",
            where="--minutes",
            hint=f"give {math.ceil(least[name] / 60):,} minutes or more, or a faster machine",
        )


def _least(phase: Phase, cost: _Seconds) -> float:
    """Seconds of the shortest training, whose held-out text is measured at the end at least."""
    steps = LEAST_STEPS * cost.step(_halved(StepPlan(phase).rows)[-1])
    return max(steps + cost.measurement, steps / (1 - MEASURING))


def _within(phase: Phase, cost: _Seconds, seconds: float) -> Phase:
    """The phase, as long as some seconds allow."""
    often = (every for every in (phase.measure_every, Share(0.5)) if _measuring(every, cost) <= MEASURING * seconds)
    every = next(often, Share(1.0))
    left, choices = seconds - _measuring(every, cost), _halved(StepPlan(phase).rows)
    rows = next((rows for rows in choices if left / cost.step(rows) >= ENOUGH_STEPS), choices[-1])
    steps = max(LEAST_STEPS, _round_down(left / cost.step(rows)))
    return replace(
        phase,
        tokens=Tokens(math.ceil(steps * rows * phase.length * tokens_per_position(phase.stages, phase.length))),
        batch_tokens=rows * phase.length,
        measure_every=every,
    )


def _halved(rows: int) -> list[int]:
    """Rows of a step, and fewer that may be taken instead."""
    found = [rows]
    while found[-1] // 2 >= LEAST_ROWS:
        found.append(found[-1] // 2)
    return found


def _measuring(every: Share, cost: _Seconds) -> float:
    """Seconds of all held-out measurements."""
    return round(1 / every.fraction) * cost.measurement


def _round_down(value: float) -> int:
    """A whole number of two digits and zeros: what was measured is no surer than that."""
    unit = 10 ** max(0, math.floor(math.log10(max(1, value))) - 1)
    return math.floor(value / unit) * unit
