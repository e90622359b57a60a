"""Phases that fill the minutes: how many steps, how large, measured how often."""

from dataclasses import replace

import pytest

from lilliput.base.errors import MachineError
from lilliput.base.units import Share
from lilliput.optim.schedule import WarmupStableDecay
from lilliput.plan.cost import Cost, Measured, Pass
from lilliput.recipe import load_recipe
from lilliput.start.fitting import LEAST_STEPS, MEASURING, Training, fitted
from lilliput.train.phase import Phase, StepPlan


def costing(recipe, row, update=0.0):
    """Of every phase the same: seconds of a row, and of an update."""
    one = Pass(seconds=4 * row, repeats=1, rows=4, activations=None)
    cost = Cost(passes=(one,), update=Measured(seconds=update, repeats=1) if update else None)
    return Training(recipe, {place: cost for place, entry in enumerate(recipe.timeline) if isinstance(entry, Phase)})


def seconds_of(phase, row, update, measurement):
    plan = StepPlan(phase)
    return plan.steps * (plan.rows * row + update) + round(1 / phase.measure_every.fraction) * measurement


@pytest.mark.parametrize("minutes", [2, 17, 600])
def test_training_and_its_measurements_take_the_time_asked_for(minutes):
    recipe, row, update = load_recipe("own-chat"), 0.01, 0.05
    phases = fitted([costing(recipe, row, update)], {"texts": 100_000, "chats": 40_000}, 60 * minutes)
    measurements = {"pretrain": 5_000 / 256 * row / 3, "sft": 2_000 / 512 * row / 3}
    taken = sum(seconds_of(phases[name], row, update, measurements[name]) for name in ("pretrain", "sft"))
    assert 0.9 * 60 * minutes < taken <= 60 * minutes + 1e-6
    before, after = (entry for entry in recipe.timeline if isinstance(entry, Phase))
    ratio = (StepPlan(phases["pretrain"]).steps / StepPlan(phases["sft"]).steps) / (
        StepPlan(before).steps / StepPlan(after).steps
    )
    assert ratio == pytest.approx(1, abs=0.2), "in the proportion of time that they had"


def test_only_length_is_changed_where_there_are_steps_enough():
    recipe = load_recipe("own-text")
    (phase,) = fitted([costing(recipe, 0.001)], {"texts": 1_000}, 3_600).values()
    assert phase == replace(recipe.timeline[0], tokens=phase.tokens) and StepPlan(phase).steps == 220_000


def test_batches_are_halved_where_steps_would_be_few_and_not_where_rows_are_few():
    recipe = load_recipe("slm-10m")
    phase = replace(recipe.timeline[0], schedule=WarmupStableDecay(warmup=Share(0.02), decay=Share(0.1)))
    recipe = replace(recipe, timeline=(phase, *recipe.timeline[1:]))
    (fast,) = fitted([costing(recipe, 0.0001)], {}, 3_600).values()
    assert fast.batch_tokens == phase.batch_tokens
    (slow,) = fitted([costing(recipe, 0.02)], {}, 3_600).values()
    assert StepPlan(slow).rows == 256 and 500 <= StepPlan(slow).steps < 1_000
    (slower,) = fitted([costing(recipe, 1.0)], {}, 3_600).values()
    assert StepPlan(slower).rows == 16 and StepPlan(slower).steps < 500
    small = load_recipe("quickstart")
    assert StepPlan(fitted([costing(small, 0.1)], {}, 600)["sft"]).rows == 8


def test_measurements_take_a_part_of_the_time_only():
    recipe, row = load_recipe("own-text"), 0.05
    measurement = 65_536 / 256 * row / 3
    for seconds, every in ((25 * measurement, 0.25), (12 * measurement, 0.5), (6 * measurement, 1.0)):
        (phase,) = fitted([costing(recipe, row)], {"texts": None}, seconds).values()
        assert phase.measure_every == Share(every)
        assert seconds_of(phase, row, 0, measurement) <= seconds and measurement / every <= MEASURING * seconds


def test_trainings_one_after_another_share_the_time():
    recipe = load_recipe("quickstart").until("pretrain")
    alone = fitted([costing(recipe, 0.001)], {"docs": 0, "arithmetic": 0}, 600)["pretrain"]
    shared = fitted([costing(recipe, 0.001), costing(recipe, 0.003)], {"docs": 0, "arithmetic": 0}, 600)["pretrain"]
    assert StepPlan(shared).steps == pytest.approx(StepPlan(alone).steps / 4, rel=0.1)


def test_too_few_minutes_are_refused_and_those_of_the_hint_are_enough():
    recipe = load_recipe("own-chat")
    for minutes in (0.5, 1, 2):
        with pytest.raises(MachineError, match=f"^{minutes} minutes are too short") as refused:
            fitted([costing(recipe, 0.4)], {}, 60 * minutes)
    enough = float(refused.value.hint.split()[1])
    phases = fitted([costing(recipe, 0.4)], {}, 60 * enough)
    assert all(StepPlan(phase).steps >= LEAST_STEPS for phase in phases.values())
