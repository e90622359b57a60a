"""Token superposition in a phase: bags that shrink, multi-token targets that fade, rows that are shorter."""

from dataclasses import replace

import pytest
import tiny
import torch
from train.test_loop import same, shards, train  # noqa: F401, shards is a fixture

from lilliput.base.errors import RecipeError
from lilliput.base.units import Share, Steps, Tokens
from lilliput.data.batch import Cursor
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.targets import MultiToken, Targets
from lilliput.plan.count import plan
from lilliput.shrink import shrink
from lilliput.train import checkpoint
from lilliput.train.metrics_file import measured_of, steps_of
from lilliput.train.phase import Stage, StepPlan

FADING = MultiToken(count=2, weight=0.5, until=0.9)
STAGES = tuple(
    Stage(share=share, objective=NextToken(bag=bag, targets=Targets(power=1.0), further=FADING))
    for share, bag in ((1 / 3, 4), (1 / 3, 2), (1 / 3, 1))
)
PATCHES = (
    Stage(share=2 / 3, objective=NextToken(bag=4), length=8),
    Stage(share=1 / 3, objective=NextToken()),
)


def phase_of(stages=STAGES, steps=12, **changes):
    text = sum(stage.share * stage.objective.tokens_per_position * stage.positions(32) / 32 for stage in stages)
    return tiny.pretraining(
        stages=stages, tokens=Tokens(steps * 4 * 32 * text + 1), measure_every=Share(0.5), **changes
    )


def untimed(metrics):
    return [{name: one for name, one in line.items() if "second" not in name} for line in metrics]


@pytest.mark.parametrize("stop", [3, 5, 9])
def test_four_two_one_resumes_to_the_bit_across_each_switch(shards, tmp_path, stop):  # noqa: F811
    """Stops lie after the first checkpoint was begun, and right after the switches at steps 4 and 8."""
    straight, average, metrics = train(shards, tmp_path / "straight", phase=phase_of())
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "resumed", phase=phase_of(), stop=stop)
    resumed, other, others = train(shards, tmp_path / "resumed", phase=phase_of())
    assert same(straight, resumed) and all(torch.equal(average[name], other[name]) for name in average)
    assert untimed(metrics) == untimed(others)


def test_a_switch_keeps_optimizer_schedule_and_place_in_the_text(shards, tmp_path):  # noqa: F811
    phase = phase_of(save_every=Steps(4))
    train(shards, tmp_path, phase=phase)
    last = checkpoint.newest(tmp_path / "checkpoints", print)
    steps = {int(one) for name, one in last.tensors["optimizer"].items() if name.endswith("step")}
    assert steps == {12}, "the optimizer has counted on over both switches"
    read = 4 * 4 * 32 * (4 + 2 + 1)
    assert last.progress.tokens == read == last.progress.cursor.of("texts"), "text is counted, and no token twice"


def test_text_and_positions_are_told_apart(shards, tmp_path):  # noqa: F811
    _, _, metrics = train(shards, tmp_path, phase=phase_of())
    steps = steps_of(metrics)
    each = 4 * 32
    assert [line["positions"] for line in steps] == [each * step for step in range(1, 13)]
    assert [steps[place]["tokens"] for place in (3, 7, 11)] == [4 * each * 4, 4 * each * 6, 4 * each * 7]
    assert all(line["heldout"]["texts"] > 0 for line in measured_of(metrics)), "in bits per byte, at a bag of 1"


def test_shorter_rows_read_the_same_text_in_fewer_positions(shards, tmp_path):  # noqa: F811
    phase = phase_of(PATCHES)
    steps = StepPlan(phase)
    assert steps.steps == 12 and [steps.tokens(stage) for stage in (0, 1)] == [4 * 32, 4 * 32]
    assert [steps.positions(stage) for stage in (0, 1)] == [4 * 8, 4 * 32]
    assert phase.row_tokens(0) == (36, 4) and phase.row_tokens(1) == (33, 1)
    straight, _, metrics = train(shards, tmp_path / "straight", phase=phase)
    lines = steps_of(metrics)
    assert [line["tokens"] for line in lines] == [4 * 32 * step for step in range(1, 13)]
    assert lines[-1]["positions"] == 8 * 4 * 8 + 4 * 4 * 32
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "resumed", phase=phase, stop=9)
    assert same(straight, train(shards, tmp_path / "resumed", phase=phase)[0])


def test_a_plan_counts_what_shorter_rows_spare(tmp_path):
    recipe = replace(tiny.recipe(tmp_path), timeline=(phase_of(PATCHES),))
    (made,) = plan(recipe)["phases"]
    assert (made["tokens"], made["positions"]) == (12 * 128, 8 * 32 + 4 * 128)
    flops = tiny.HGRN2_SPEC.flops
    assert made["operations"] == 3 * (8 * 32 * flops(8) + 4 * 128 * flops(32))


def test_shorter_rows_stay_as_short_in_proportion_where_a_recipe_is_shrunk(tmp_path):
    recipe = replace(tiny.recipe(tmp_path), timeline=(phase_of(PATCHES),))
    (phase,) = shrink(recipe).phases.values()
    assert [stage.positions(phase.length) / phase.length for stage in phase.stages] == [0.25, 1.0]


def test_rows_of_a_stage_are_no_longer_than_those_of_the_phase():
    with pytest.raises(RecipeError, match="rows of 64 positions"):
        phase_of((Stage(share=1.0, objective=NextToken(), length=64),))


def test_rows_overlap_by_what_is_ahead(shards):  # noqa: F811
    """So that the first token of a step is the one after the last that the step before it read."""
    phase = phase_of()
    reader = phase.data.open(shards)
    for stage in range(3):
        length, overlap = phase.row_tokens(stage)
        bag = phase.stages[stage].objective.bag
        assert overlap == bag + 2
        batch, after = reader.read(Cursor(), 2, length, overlap)
        assert after.of("texts") == 2 * 32 * bag
        assert batch.tokens[0, -overlap:].tolist() == batch.tokens[1, :overlap].tolist()
