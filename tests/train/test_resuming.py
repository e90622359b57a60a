"""Resuming a phase before its decay: equal to the bit to one that was longer from the beginning, whatever happens."""

from dataclasses import replace

import pytest
import tiny
import torch
from train.test_loop import same, shards, train  # noqa: F401, shards is a fixture
from train.test_spike_detection import Spoilt

from lilliput.base.errors import RecipeError, RunError
from lilliput.base.units import Share, Steps, Tokens
from lilliput.objectives.next_token import NextToken
from lilliput.optim.adamw import AdamW
from lilliput.optim.ema import NoEma
from lilliput.optim.schedule import Constant, Cosine, WarmupStableDecay, resumed_schedule, stable_until
from lilliput.recipe import Recipe
from lilliput.train import checkpoint
from lilliput.train.metrics_file import steps_of
from lilliput.train.phase import Phase, Stage, StepPlan
from lilliput.train.resuming import BEFORE_DECAY, resume_point
from lilliput.train.rollback import read_incidents

ONE = (Stage(share=1.0, objective=NextToken()),)
SCHEDULE = WarmupStableDecay(warmup=Steps(2), decay=Steps(3))


def first(**changes) -> Phase:
    """Seven steps at a stable rate, the warm-up among them, and a decay of three that begins between checkpoints."""
    return tiny.pretraining(steps=10, stages=ONE, schedule=SCHEDULE, **changes)


def second(before: Phase, steps: int = 6, **changes) -> Phase:
    tokens = Tokens(steps * before.batch_tokens)
    return replace(
        before, name="longer", tokens=tokens, resumes=before.name, schedule=resumed_schedule(before.schedule), **changes
    )


def resume(shards, folder, phase, before, **how):  # noqa: F811
    return train(shards, folder / "second", phase=phase, begin=lambda: resume_point(before, folder / "first"), **how)


@pytest.fixture(scope="module")
def half_trained(shards, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("half_trained")
    return folder, train(shards, folder / "first", phase=first(), keep=True)


def test_it_equals_a_phase_that_was_longer_from_the_beginning(shards, half_trained):  # noqa: F811
    folder, (decayed, _, _) = half_trained
    model, average, metrics = resume(shards, folder, second(first()), first())
    long = replace(first(), tokens=Tokens((7 + 6) * 128))
    straight, other, whole = train(shards, folder / "long", phase=long)
    assert same(model, straight) and not same(model, decayed)
    assert average and all(torch.equal(average[name], other[name]) for name in average), "its warm-up goes on, too"
    ours, theirs = steps_of(metrics), steps_of(whole)[7:]
    assert ours[0]["step"] == 1 and ours[0]["tokens"] == 128, "steps and tokens are the phase's own"
    for name in ("lr", "cross_entropy", "grad_norm"):
        assert [line[name] for line in ours] == [line[name] for line in theirs]


def test_what_it_resumes_is_kept_beside_the_others(shards, half_trained, tmp_path):  # noqa: F811
    folder, (decayed, _, _) = half_trained
    assert sorted(path.name for path in (folder / "first" / "checkpoints").iterdir()) == ["step-000008", "step-000010"]
    assert [path.name for path in (folder / "first" / BEFORE_DECAY).iterdir()] == ["step-000007"]
    without, _, _ = train(shards, tmp_path / "first", phase=first())
    assert same(without, decayed) and not (tmp_path / "first" / BEFORE_DECAY).exists()


@pytest.mark.parametrize("stop", [3, 7, 9])
def test_an_interruption_keeps_the_same_state(shards, half_trained, tmp_path, stop):  # noqa: F811
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "first", phase=first(), keep=True, stop=stop)
    train(shards, tmp_path / "first", phase=first(), keep=True)
    theirs, ours = (resume_point(first(), folder / "first") for folder in (half_trained[0], tmp_path))
    assert theirs.progress == ours.progress and theirs.progress.step == 7
    for kind, tensors in theirs.tensors.items():
        assert all(torch.equal(value, ours.tensors[kind][name]) for name, value in tensors.items()), kind


def test_a_way_back_past_the_decay_keeps_the_state_of_the_way_on(shards, tmp_path):  # noqa: F811
    """An incident after the decay begins leads back before it: without that text there is another state."""

    phase = first(data=Spoilt("nan", 900))  # in step 8, after the checkpoint of step 4
    train(shards, tmp_path / "first", phase=phase, keep=True)
    (incident,) = read_incidents(tmp_path / "first" / "checkpoints")
    assert (incident["step"], incident["back_to"]) == (8, 4)
    found = resume_point(phase, tmp_path / "first").progress
    assert found.step == 7 and found.cursor.of("texts") == incident["to"]["texts"] + 3 * 128


@pytest.mark.parametrize("stop", [1, 5])
def test_it_is_resumed_itself_to_the_bit(shards, half_trained, tmp_path, stop):  # noqa: F811
    phase = second(first())
    (tmp_path / "first").symlink_to(half_trained[0] / "first")
    straight, average, _ = resume(shards, tmp_path, phase, first())
    (tmp_path / "second").rename(tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        resume(shards, tmp_path, phase, first(), stop=stop)
    again, other, _ = resume(shards, tmp_path, phase, first())
    assert same(straight, again) and all(torch.equal(average[name], other[name]) for name in average)


def test_the_state_is_read_once(shards, half_trained, tmp_path):  # noqa: F811
    """Objectives are built on its weights and training resumes from it; a large model's takes seconds to read."""
    reads = []

    def begin():
        reads.append(1)
        return resume_point(first(), half_trained[0] / "first")

    train(shards, tmp_path / "second", phase=second(first()), begin=begin)
    assert len(reads) == 1


def test_it_is_resumed_by_the_next_one(shards, half_trained, tmp_path):  # noqa: F811
    """A third phase goes on before the decay of the second; together they are one long phase."""
    (tmp_path / "first").symlink_to(half_trained[0] / "first")
    phase = second(first())
    train(shards, tmp_path / "second", phase=phase, keep=True, begin=lambda: resume_point(first(), tmp_path / "first"))
    third = replace(second(phase, steps=5), name="longest")
    state = resume_point(phase, tmp_path / "second")
    assert (state.progress.step, state.progress.before) == (3, 7)
    model, average, _ = train(shards, tmp_path / "third", phase=third, begin=lambda: state)
    straight, other, _ = train(shards, tmp_path / "long", phase=replace(first(), tokens=Tokens((7 + 3 + 5) * 128)))
    assert same(model, straight) and all(torch.equal(average[name], other[name]) for name in average)


def test_without_a_stable_rate_it_goes_on_at_the_end(shards, tmp_path):  # noqa: F811
    before = replace(first(), schedule=Constant(warmup=Steps(2)))
    train(shards, tmp_path / "first", phase=before, keep=True)
    assert not (tmp_path / "first" / BEFORE_DECAY).exists()
    model, _, _ = resume(shards, tmp_path, second(before), before)
    straight, _, _ = train(shards, tmp_path / "long", phase=replace(before, tokens=Tokens(16 * 128)))
    assert same(model, straight)


def test_where_a_stable_rate_ends():
    assert stable_until(SCHEDULE, 10) == 7 and stable_until(replace(SCHEDULE, decay=Share(0.2)), 10) == 8
    for none in (replace(SCHEDULE, decay=Steps(8)), replace(SCHEDULE, decay=Share(0)), Constant(), Cosine()):
        assert stable_until(none, 10) is None
    assert resumed_schedule(SCHEDULE)(0, 6) == 1.0 == resumed_schedule(Constant(warmup=Steps(9)))(0, 10)
    assert resumed_schedule(Cosine()) == Cosine(), "there is no rate to go back to: it is warmed up again"


def test_a_state_that_is_gone_or_damaged_is_named(shards, tmp_path):  # noqa: F811
    train(shards, tmp_path / "first", phase=first(), keep=True)
    state = tmp_path / "first" / BEFORE_DECAY / "step-000007"
    data = bytearray((state / "average.safetensors").read_bytes())
    data[-1] ^= 1
    (state / "average.safetensors").write_bytes(data)
    with pytest.raises(RunError, match=r"average.safetensors[\s\S]*--out"):
        resume_point(first(), tmp_path / "first")
    checkpoint.remove(state)
    with pytest.raises(RunError, match=r"before the decay of 'pretrain' is missing[\s\S]*step-000007"):
        resume_point(first(), tmp_path / "first")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"resumes": "sft"}, "resumes 'sft', but 'pretrain' comes right before it"),
        ({"optimizer": AdamW(lr=1e-3)}, "optimizer.lr was 0.006, not 0.001"),
        ({"ema": NoEma()}, "with another state: ema.type"),
        ({"schedule": SCHEDULE}, "whose stable rate is 1 of the peak, but its first step is at 0.5"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, changes, says):
    recipe, before = tiny.recipe(tmp_path), first()
    phase = replace(second(before), **changes)
    with pytest.raises(RecipeError, match=says):
        replace(recipe, timeline=(before, recipe.timeline[2], phase))


def test_only_releases_stand_between(tmp_path):
    recipe, before = tiny.recipe(tmp_path), first()
    _, average, release, *_ = recipe.timeline
    whole = replace(recipe, timeline=(before, release, second(before)))
    assert isinstance(whole, Recipe) and whole.resumed_by(0) == 2 and whole.resumed_by(2) is None
    for timeline in ((second(before),), (before, average, second(before))):
        with pytest.raises(RecipeError, match="no phase comes right before it"):
            replace(recipe, timeline=timeline)
    assert (
        StepPlan(before).resumable == 7 and StepPlan(replace(before, schedule=Cosine(warmup=Steps(1)))).resumable == 10
    )
