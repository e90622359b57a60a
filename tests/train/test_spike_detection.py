"""Steps that must not be taken: noticed before the update, gone back from, their text left out, to the bit."""

import json
from dataclasses import replace

import pytest
import tiny
import torch
from train.test_loop import MACHINE, Interrupted, same, shards, train  # noqa: F401, shards is a fixture

from lilliput.base.errors import DivergenceError, RecipeError, RunError
from lilliput.optim.adamw import AdamW
from lilliput.train.rollback import read_incidents
from lilliput.train.spike_detection import Guard, NoGuard, SpikeDetector

PHASE = tiny.pretraining(steps=24, guard=Guard(window=6, loss=4.0))
ROWS = 4 * 32
"""Tokens of a step."""


class Spoilt:
    """A mixture that is not text where it covers one of some positions."""

    def __init__(self, how, *positions):
        self.how, self.positions = how, positions

    corpora = ("texts",)

    def bytes_per_token(self, tokens):
        return 2.0

    def open(self, tokens):
        self.reader = tiny.pretraining().data.open(tokens)
        return self

    def read(self, cursor, *arguments):
        batch, after = self.reader.read(cursor, *arguments)
        if any(cursor.of("texts") <= place < after.of("texts") for place in self.positions):
            if self.how == "noise":
                noise = torch.randint(300, batch.tokens.shape, generator=torch.Generator().manual_seed(7))
                batch = replace(batch, tokens=noise)
            else:
                batch = replace(batch, weight=torch.full_like(batch.weight, torch.nan))
        return batch, after


def numbers(metrics):
    clock = {"seconds", "tokens_per_second"}
    return [{key: value for key, value in line.items() if key not in clock} for line in metrics]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["noise", "nan"])
@pytest.mark.parametrize("stop", [11, 14, 21])
def test_a_run_that_is_killed_around_an_incident_ends_as_one_that_is_not(shards, tmp_path, how, stop):  # noqa: F811
    """The text of step 11 is spoilt: back to step 8, and on behind it. Kills come before, while going on, and later."""
    phase = replace(PHASE, data=Spoilt(how, 10 * ROWS + 5), optimizer=AdamW(lr=1e-2))
    straight, average, metrics = train(shards, tmp_path / "straight", phase=phase)
    (incident,) = read_incidents(tmp_path / "straight" / "checkpoints")
    assert (incident["step"], incident["back_to"]) == (11, 8)
    assert ("jumped" if how == "noise" else "not finite") in incident["why"]
    assert incident["from"]["texts"] < 10 * ROWS + 5 < incident["to"]["texts"]
    steps = [line for line in metrics if "cross_entropy" in line]
    assert [line["step"] for line in steps] == list(range(1, 25)), "as many steps are taken as were planned"
    assert [line.get("incidents", 0) for line in steps] == [0] * 8 + [1] * 16
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "killed", phase=phase, stop=stop)
    killed, other, other_metrics = train(shards, tmp_path / "killed", phase=phase)
    assert same(straight, killed) and all(torch.equal(average[key], other[key]) for key in average)
    assert numbers(metrics) == numbers(other_metrics)
    assert read_incidents(tmp_path / "killed" / "checkpoints") == [incident]


class Struck:
    """A model one of whose gradients is infinite in one pass, counted from 0: no text has anything to do with it."""

    def __init__(self, which):
        self.which = which

    def build(self, seed):
        model, passes = tiny.GQA_SPEC.build(seed), iter(range(10_000))
        strike = lambda grad: torch.full_like(grad, torch.inf) if next(passes) == self.which else None  # noqa: E731
        model.get_parameter("layers.1.ffn.down.weight").register_hook(strike)
        return model


@pytest.mark.slow
def test_what_was_left_out_once_stays_left_out(shards, tmp_path):  # noqa: F811
    """An incident that will not come again: whoever goes on later knows of it all the same."""
    straight, _, metrics = train(shards, tmp_path / "straight", spec=Struck(6), phase=PHASE)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "killed", spec=Struck(6), phase=PHASE, stop=9)
    resumed, _, other_metrics = train(shards, tmp_path / "killed", spec=tiny.GQA_SPEC, phase=PHASE)
    assert same(straight, resumed) and numbers(metrics) == numbers(other_metrics)
    untouched, _, _ = train(shards, tmp_path / "untouched", spec=tiny.GQA_SPEC, phase=PHASE)
    assert not same(straight, untouched), "it read other text"


def test_an_incident_again_and_again_ends_the_training(shards, tmp_path):  # noqa: F811
    """After the second one step 12 is saved; three after one checkpoint are too many, now and whenever it goes on."""
    spoilt = Spoilt("nan", *(place * ROWS + 5 for place in range(9, 40)))
    for _ in range(2):
        with pytest.raises(DivergenceError, match="incident 3 after the checkpoint of step 8") as error:
            train(shards, tmp_path, phase=replace(PHASE, data=spoilt))
        assert error.value.where.startswith("step 9 of phase 'pretrain'") or "step 10" in error.value.where
    assert len(read_incidents(tmp_path / "checkpoints")) == 2


def test_before_the_first_checkpoint_it_goes_back_to_the_beginning(shards, tmp_path):  # noqa: F811
    train(shards, tmp_path, phase=replace(PHASE, data=Spoilt("nan", 5)))
    (incident,) = read_incidents(tmp_path / "checkpoints")
    assert (incident["step"], incident["back_to"], incident["from"]) == (1, 0, {})


def test_fp16_skips_by_itself(shards, tmp_path):  # noqa: F811
    machine = replace(MACHINE, precision="fp16")
    _, _, metrics = train(shards, tmp_path, spec=Struck(6), phase=PHASE, machine=machine)
    assert metrics[-2]["skipped"] == 1 and not read_incidents(tmp_path / "checkpoints")


def test_without_a_guard_the_first_one_ends_the_training(shards, tmp_path):  # noqa: F811
    with pytest.raises(DivergenceError, match="the gradient is not finite"):
        train(shards, tmp_path, spec=Struck(6), phase=replace(PHASE, guard=NoGuard()))


def test_the_guard_changes_nothing_where_nothing_happens(shards, tmp_path):  # noqa: F811
    guarded, _, metrics = train(shards, tmp_path / "guarded", phase=tiny.pretraining())
    free, _, others = train(shards, tmp_path / "free", phase=tiny.pretraining(guard=NoGuard()))
    assert same(guarded, free) and numbers(metrics) == numbers(others)
    assert not read_incidents(tmp_path / "guarded" / "checkpoints")


def test_a_tenth_of_a_nat_is_no_spike_however_small_losses_are():
    """As those of the block of the least noise, which predicts what it can nearly see."""
    detector = SpikeDetector(Guard(window=5), clip=1.0)
    for loss in (0.003, 0.002, 0.004, 0.003, 0.003, 0.09):
        assert detector.check(0, 0, loss, 0.2) is None
    assert "the loss jumped to 0.2, more than 0.103" in (detector.check(0, 0, 0.2, 0.2) or "")


def test_what_is_far_from_the_median_is_a_spike():
    detector = SpikeDetector(Guard(window=5, loss=10.0, norm=20.0), clip=1.0)
    for loss in (3.0, 3.2, 2.9, 9.0, 3.1):  # not even a jump, before it knows what is usual
        assert detector.check(0, 0, loss, 0.2) is None
    assert "the loss jumped to 4.8, more than 4.65" in (detector.check(0, 0, 4.8, 0.2) or ""), "3.1 + 10 * 0.155"
    assert detector.check(0, 0, 3.1, 9.9) is None, "clipped to a tenth it does no harm"
    assert "the gradient norm jumped to 11, more than 10" in (detector.check(0, 0, 3.1, 11.0) or "")
    assert detector.check(1, 0, 30.0, 1.1) is None, "another stage has other losses"
    other = SpikeDetector(Guard(window=5), clip=1.0)
    other.load(detector.tensors())
    assert all(torch.equal(value, other.tensors()[name]) for name, value in detector.tensors().items())


def test_a_damaged_record_of_incidents_is_named(tmp_path):
    (tmp_path / "incidents.json").write_text(json.dumps({"incidents": [], "sha256": "0"}))
    with pytest.raises(RunError, match="damaged"):
        read_incidents(tmp_path)


@pytest.mark.parametrize("changes", [{"window": 1}, {"loss": -1.0}, {"norm": float("nan")}, {"max_rollbacks": 0}])
def test_impossible_guards_are_refused(changes):
    with pytest.raises(RecipeError, match=next(iter(changes))):
        Guard(**changes)


def test_a_learning_rate_beyond_reason_ends_the_training(shards, tmp_path):  # noqa: F811
    with pytest.raises(DivergenceError, match="is not finite"):
        train(shards, tmp_path, phase=replace(PHASE, optimizer=AdamW(lr=1e30)))
