"""Learning-rate schedules against tables of their values, and that of a card against its formula."""

import math
from itertools import pairwise

import pytest
import tiny

from lilliput.base.errors import RecipeError
from lilliput.base.units import Share, Steps
from lilliput.optim.schedule import (
    TAILS,
    Constant,
    Cosine,
    CosineCycles,
    WarmupStableDecay,
    check_durations,
    resumed_schedule,
)


def wsd(**changes):
    return WarmupStableDecay(**({"warmup": Steps(10), "decay": Share(0.2), "floor": 0.0} | changes))


ROOT = math.sqrt(0.5)
TABLES = [  # of 100 steps; of `wsd` 10 are warm-up, 70 plateau, 20 tail
    (wsd(), {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 80: 1.0, 85: (1 + ROOT) / 2, 90: 0.5, 95: (1 - ROOT) / 2, 100: 0.0}),
    (wsd(first="zero"), {0: 0.0, 5: 0.5, 10: 1.0, 80: 1.0, 90: 0.5}),
    (wsd(floor=0.1), {79: 1.0, 90: 0.55, 100: 0.1}),
    (wsd(shape="linear"), {80: 1.0, 85: 0.75, 90: 0.5, 99: 0.05, 100: 0.0}),
    (wsd(shape="1-sqrt"), {79: 1.0, 80: 1.0, 85: 0.5, 90: 1 - ROOT, 100: 0.0}),
    (wsd(shape="1-sqrt", floor=0.1), {85: 0.55, 100: 0.1}),
    (wsd(warmup=Steps(0), decay=Steps(0)), {0: 1.0, 99: 1.0}),
    (Cosine(warmup=Steps(20), floor=0.1), {0: 1 / 20, 19: 1.0, 20: 1.0, 60: 0.55, 100: 0.1}),
    (Cosine(warmup=Steps(0), floor=0.0), {0: 1.0, 50: 0.5, 100: 0.0}),
    (Constant(), {0: 1.0, 99: 1.0}),
    (Constant(warmup=Steps(4)), {0: 0.25, 3: 1.0, 4: 1.0, 99: 1.0}),
    (Constant(warmup=Share(0.1)), {4: 0.5, 9: 1.0, 50: 1.0}),
    (
        CosineCycles(base=Constant(), part=Share(0.4), count=2, floor=0.0),
        {59: 1, 60: 1, 70: 0.5, 80: 1, 90: 0.5, 100: 0},
    ),
    (CosineCycles(base=Constant(), part=Share(1.0), floor=0.1), {0: 1.0, 25: 1.0, 50: 1.0, 75: 1.0, 100: 0.1}),
    (CosineCycles(base=wsd(shape="linear"), part=Share(0.2), count=2, floor=0.5), {90: 0.5, 95: 0.25 * 0.75, 100: 0}),
]


@pytest.mark.parametrize(("schedule", "values"), TABLES, ids=str)
def test_a_schedule_has_its_values(schedule, values):
    assert {step: schedule(step, 100) for step in values} == pytest.approx(values, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("shape", TAILS)
def test_tails_fall_from_the_peak_to_the_floor(shape):
    values = [wsd(shape=shape, floor=0.1)(step, 100) for step in range(80, 101)]
    assert values[0] == 1.0 and values[-1] == pytest.approx(0.1)
    assert all(later < earlier for earlier, later in pairwise(values))


def test_the_slm_card_schedule():
    """25 billion tokens in batches of 524,288; the tail is int(0.15 N) long, so it begins at D."""
    steps = 25_000_000_000 // 524_288
    schedule = WarmupStableDecay(warmup=Steps(1_000), first="zero", decay=Share(0.15), shape="cosine", floor=0.1)
    assert steps == 47_683 and steps - int(0.15 * steps) == 40_531
    assert schedule(0, steps) == 0 and schedule(500, steps) == 0.5 and schedule(1_000, steps) == 1
    for step in (40_531, 40_532, 42_319, 44_107, 45_895, 47_682, 47_683):
        expected = 3e-4 + 0.5 * (1 + math.cos(math.pi * (step - 40_531) / 7_152)) * (3e-3 - 3e-4)
        assert 3e-3 * schedule(step, steps) == pytest.approx(expected, rel=1e-12)
    assert schedule(40_530, steps) == schedule(40_531, steps) == 1 and schedule(40_532, steps) < 1
    # The repository's own length: 75 billion tokens, of which 1,000 steps warm up and 21,457 decay.
    longer = 75_000_000_000 // 524_288
    assert longer == 143_051 and schedule(121_594, longer) == 1 and schedule(121_595, longer) < 1


def test_a_tail_without_a_shape_is_refused():
    with pytest.raises(RecipeError, match="shape cannot be 'sqrt'") as error:
        WarmupStableDecay(shape="sqrt")
    assert "1-sqrt" in error.value.hint


def test_the_first_step_moves_something():
    for schedule in (wsd(), Cosine(), Constant(warmup=Steps(7)), WarmupStableDecay()):
        assert schedule(0, 1_000) > 0


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        (wsd(warmup=Steps(500)), "warmup of 500 steps and decay of 20 steps do not fit into the phase's 100 steps"),
        (wsd(warmup=Share(0.5), decay=Share(0.6)), "warmup of 50 steps and decay of 60 steps"),
        (Cosine(warmup=Steps(101)), "warmup of 101 steps"),
        (Constant(warmup=Steps(101)), "warmup of 101 steps"),
        (CosineCycles(base=Constant(warmup=Steps(101))), "warmup of 101 steps"),
    ],
)
def test_durations_fit_into_the_phase(schedule, says):
    with pytest.raises(RecipeError, match=says):
        check_durations(schedule, 100, "a test")
    with pytest.raises(RecipeError, match="do not fit"):
        tiny.pretraining(steps=12, schedule=wsd(warmup=Steps(12), decay=Share(0.5)))
    tiny.pretraining(steps=12, schedule=wsd(warmup=Steps(6), decay=Share(0.5)))


@pytest.mark.parametrize("steps", [7, 100, 4_577, 16_021])
@pytest.mark.parametrize("part", [0.1, 0.25, 0.4, 0.7, 1.0])
def test_a_checkpoint_at_the_end_of_a_cycle_is_none_of_the_next(part, steps):
    """Shares as one types them, which need not be the nearest number to what is computed."""
    cycles = CosineCycles(base=Constant(), part=Share(part), count=5, floor=0.05)
    typed = [round(1 - part + part * number / 5, 10) for number in range(1, 6)]
    for share, end in zip(typed, cycles.ends(steps)[1:], strict=True):
        kept = Share(share).of(steps)
        assert kept <= end <= kept + 1
    if steps >= 100:
        rates = [cycles(step, steps) for step in range(steps)]
        assert sum(later > earlier for earlier, later in pairwise(rates)) == 4, "it rises between cycles alone"


def test_what_goes_on_from_cycles_has_them_without_the_warm_up():
    again = resumed_schedule(CosineCycles(base=Constant(warmup=Steps(50)), part=Share(0.5)))
    assert again == CosineCycles(base=Constant(warmup=Steps(0)), part=Share(0.5))
