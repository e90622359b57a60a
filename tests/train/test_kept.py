"""Checkpoints that a phase keeps for good: they outlive rotation, a kill and a way back, and are counted."""

from dataclasses import replace
from io import StringIO

import pytest
import tiny
import torch
from train.test_loop import MACHINE, shards, train  # noqa: F401

from lilliput.base.errors import RecipeError
from lilliput.base.spec import to_plain
from lilliput.base.terminal import Terminal
from lilliput.base.units import Share, Steps
from lilliput.plan.count import plan
from lilliput.plan.tables import show
from lilliput.train.checkpoint import load, steps_in
from lilliput.train.phase import KEPT_FOLDER, StepPlan


def keeping(**changes):
    return tiny.pretraining(steps=12, keep=(Steps(3), Share(0.5), Steps(7), Share(1.0)), **changes)


def test_kept_checkpoints_outlive_rotation(shards, tmp_path):  # noqa: F811
    model, _, _ = train(shards, tmp_path, phase=keeping())
    assert steps_in(tmp_path / KEPT_FOLDER) == [3, 6, 7, 12] and steps_in(tmp_path / "checkpoints") == [8, 12]
    last = load(tmp_path / KEPT_FOLDER / "step-000012").tensors["weights"]
    assert all(torch.equal(last[name], one) for name, one in model.named_parameters())
    plain, _, _ = train(shards, tmp_path / "plain", phase=keeping(save_every=Steps(100)))
    assert all(torch.equal(*pair) for pair in zip(plain.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("stop", [3, 6, 7, 9])
def test_an_interruption_keeps_the_same_checkpoints(shards, tmp_path, stop):  # noqa: F811
    train(shards, tmp_path / "straight", phase=keeping())
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "resumed", phase=keeping(), stop=stop)
    train(shards, tmp_path / "resumed", phase=keeping())
    for step in (3, 6, 7, 12):
        theirs, ours = (load(tmp_path / run / KEPT_FOLDER / f"step-{step:06d}") for run in ("straight", "resumed"))
        assert theirs.progress == ours.progress
        for kind, tensors in theirs.tensors.items():
            assert all(torch.equal(value, ours.tensors[kind][name]) for name, value in tensors.items()), kind


def test_a_phase_that_keeps_nothing_has_the_plain_form_of_before():
    assert "keep" not in to_plain(tiny.pretraining()) and not StepPlan(tiny.pretraining()).kept_steps


def test_a_plan_counts_their_bytes(tmp_path):
    recipe = tiny.recipe(tmp_path)
    before, after = (
        plan(replace(recipe, timeline=(phase,)), MACHINE)["phases"][0]["checkpoints"]
        for phase in (tiny.pretraining(steps=12), keeping())
    )
    assert after["for_good"] == 4 and after["kept"] == before["kept"]
    count = before["kept"] + before["before_decay"]
    assert after["bytes"] * count == before["bytes"] * (count + 4)
    out = StringIO()
    show(Terminal(file=out, width=200), plan(replace(recipe, timeline=(keeping(),)), MACHINE))
    assert "pretrain keeps 4 checkpoints for good, which are counted too" in out.getvalue()


def test_a_step_before_the_first_is_refused():
    with pytest.raises(RecipeError, match="keep names step 0"):
        tiny.pretraining(keep=(Steps(0),))
