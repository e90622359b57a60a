"""Memory that runs out: micro-batches become smaller, steps are made again, and the record leads to equal bits."""

import json
from dataclasses import replace

import pytest
import tiny
import torch
from train.test_loop import MACHINE, same, shards, train  # noqa: F401, shards is a fixture

from lilliput.base.errors import MachineError, RecipeError, RunError
from lilliput.base.files import read_json
from lilliput.base.units import Steps
from lilliput.objectives.next_token import NextToken
from lilliput.optim.ema import Average
from lilliput.train import checkpoint, validation
from lilliput.train.machine import Machine
from lilliput.train.memory import ran_out
from lilliput.train.micro_batches import read_rows
from lilliput.train.phase import Stage

pytestmark = pytest.mark.slow

FINDS = replace(MACHINE, rows="memory")
PHASE = tiny.pretraining(steps=6, save_every=Steps(2))
ONE_STAGE = replace(PHASE, stages=(Stage(share=1.0, objective=NextToken()),))


class Narrow:
    """A model whose memory runs out, in the middle of a backward pass, where a pass has more than so many rows.

    From pass `begin` on, counted from 0; and wherever `rows` is 0.
    """

    def __init__(self, rows, begin=0, spec=tiny.HGRN2_SPEC):
        self.spec, self.rows, self.begin, self.passes = spec, rows, begin, 0

    def build(self, seed):
        model = self.spec.build(seed)
        model.layers[1].register_full_backward_hook(self._look)
        return model

    def _look(self, module, into, out):
        self.passes += 1
        if self.passes > self.begin and len(out[0]) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def fields(folder):
    return [(one["from"], one["stage"], one["rows"]) for one in read_rows(folder / "checkpoints")]


def trained(shards, folder, spec=tiny.HGRN2_SPEC, machine=FINDS, phase=PHASE, **how):  # noqa: F811
    """The weights of a model, live and averaged."""
    model, average, _ = train(shards, folder, spec=spec, machine=machine, phase=phase, **how)
    return [*model.parameters(), *average.values()]


def equal(ones, others):
    return all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


@pytest.mark.parametrize(("fit", "found"), [(3, 2), (1, 1)])
def test_a_run_ends_in_the_weights_of_one_that_was_told_what_it_found(shards, tmp_path, fit, found):  # noqa: F811
    told = trained(shards, tmp_path / "told", machine=replace(MACHINE, rows=found))
    assert equal(told, trained(shards, tmp_path / "found", Narrow(fit)))
    assert fields(tmp_path / "found") == [(0, 0, found), (3, 1, found)], "each stage finds its own"


def test_what_looks_at_activations_looks_again(shards, tmp_path):  # noqa: F811
    machine, phase = replace(MACHINE, precision="fp16"), tiny.pretraining(steps=3)
    straight, _, metrics = train(shards, tmp_path / "told", machine=replace(machine, rows=1), phase=phase)
    model, _, others = train(
        shards, tmp_path / "found", machine=replace(machine, rows="memory"), phase=phase, spec=Narrow(1)
    )
    assert same(straight, model) and metrics[0]["headroom"] > 1
    assert [line.get("headroom") for line in metrics] == [line.get("headroom") for line in others]


@pytest.mark.parametrize("stop", [1, 9])
def test_a_run_that_is_killed_tries_nothing_again(shards, tmp_path, stop):  # noqa: F811
    straight = trained(shards, tmp_path / "straight", Narrow(2))
    with pytest.raises(KeyboardInterrupt):
        trained(shards, tmp_path / "killed", Narrow(2), stop=stop)
    known, reached = len(fields(tmp_path / "killed")), checkpoint.newest(tmp_path / "killed" / "checkpoints", print)
    narrow = Narrow(2)
    assert equal(straight, trained(shards, tmp_path / "killed", narrow))
    assert fields(tmp_path / "killed") == fields(tmp_path / "straight") == [(0, 0, 2), (3, 1, 2)]
    assert narrow.passes == 2 * (6 - reached.progress.step) + 2 - known, "two a step, and one that failed a stage"


@pytest.mark.parametrize("stop", [14, 20])
def test_later_steps_may_be_split_otherwise_and_are_so_again(shards, tmp_path, stop):  # noqa: F811
    """From step 3 on, which takes nine reads to find, no pass has more than one row."""
    straight = trained(shards, tmp_path / "straight", Narrow(1, begin=2), phase=ONE_STAGE)
    assert fields(tmp_path / "straight") == [(0, 0, 4), (2, 0, 1)]
    with pytest.raises(KeyboardInterrupt):
        trained(shards, tmp_path / "killed", Narrow(1, begin=2), phase=ONE_STAGE, stop=stop)
    for later in (tmp_path / "killed" / "checkpoints").glob("step-00000[1-9]"):
        (later / "manifest.json").unlink()
    # Whoever goes on from before that step has memory enough, and splits later ones all the same.
    assert equal(straight, trained(shards, tmp_path / "killed", phase=ONE_STAGE))
    assert fields(tmp_path / "killed") == [(0, 0, 4), (2, 0, 1)]


def test_where_an_update_runs_out_training_goes_back(shards, tmp_path, monkeypatch):  # noqa: F811
    """At step 4 of 6; its rows are halved from the checkpoint of step 2 on."""
    update, calls = Average.update, iter(range(100))

    def once(*arguments):
        if next(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        update(*arguments)

    monkeypatch.setattr(Average, "update", once)
    back = trained(shards, tmp_path / "back", phase=ONE_STAGE)
    assert fields(tmp_path / "back") == [(0, 0, 4), (2, 0, 2)]
    record = (tmp_path / "back" / "checkpoints" / "rows.json").read_bytes()
    (tmp_path / "again" / "checkpoints").mkdir(parents=True)
    (tmp_path / "again" / "checkpoints" / "rows.json").write_bytes(record)
    assert equal(back, trained(shards, tmp_path / "again", phase=ONE_STAGE))


@pytest.mark.parametrize(
    ("machine", "rows", "hint"),
    [(FINDS, "one row", "shorter rows"), (replace(MACHINE, rows=2), "2 rows", '"memory", which finds them')],
)
def test_where_nothing_can_be_smaller_it_says_how_much_there_was(shards, tmp_path, machine, rows, hint):  # noqa: F811
    with pytest.raises(
        MachineError, match=f"memory ran out in a pass over {rows} of 32 positions .*cpu: .*GiB"
    ) as error:
        train(shards, tmp_path, machine=machine, spec=Narrow(0))
    assert "step 1 of phase 'pretrain'" in error.value.where and hint in error.value.hint
    assert not read_rows(tmp_path / "checkpoints"), "nothing was found"


def test_other_errors_are_no_lack_of_memory(shards, tmp_path, monkeypatch):  # noqa: F811
    assert ran_out(RuntimeError("MPS backend out of memory")) and not ran_out(RuntimeError("shapes differ"))

    def fail(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Narrow, "_look", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        train(shards, tmp_path, machine=FINDS, spec=Narrow(1))


def test_a_measurement_is_taken_again(shards, tmp_path, monkeypatch):  # noqa: F811
    sum_, calls = validation.total_headline, iter(range(100))

    def once(*arguments):
        if next(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sum_(*arguments)

    phase = tiny.pretraining(steps=4, measure_every=Steps(2))
    straight, _, metrics = train(shards, tmp_path / "straight", phase=phase)
    monkeypatch.setattr(validation, "total_headline", once)
    model, _, others = train(shards, tmp_path / "again", phase=phase)
    measured = [[line for line in lines if "texts" in line] for lines in (metrics, others)]
    assert same(straight, model) and measured[0] == measured[1]


def test_a_measurement_that_cannot_be_taken_says_so(shards, tmp_path, monkeypatch):  # noqa: F811
    def never(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(validation, "total_headline", never)
    with pytest.raises(MachineError, match="memory ran out outside the forward and backward passes") as error:
        train(shards, tmp_path, phase=tiny.pretraining(steps=4))
    assert "`positions`" in error.value.hint and "phase 'pretrain'" in error.value.where


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps({"rows": [], "sha256": "0"}))
    with pytest.raises(RunError, match="record of micro-batches is damaged") as error:
        read_rows(tmp_path)
    assert str(tmp_path) in error.value.where
    assert not read_rows(tmp_path / "nowhere") and read_json(tmp_path / "rows.json")["rows"] == []


def test_micro_rows_where_memory_decides():
    found = Machine(rows="memory")
    assert found.micro_batch_sizes(8, 1_000_000) == [8] and found.micro_batch_sizes(5, 100, 3) == [3, 2]
    assert replace(found, positions=250).micro_batch_sizes(8, 100) == [2, 2, 2, 2], "to begin with"
    assert Machine(device="cpu").resolved().rows == "auto" and Machine(device="cpu").resolved().positions == 16_384
    assert found.held_out_rows(1_024) == 16 and replace(found, positions=250).held_out_rows(1_024) == 1
    resolved = replace(found, device="cpu").resolved()
    assert resolved.rows_from_memory and resolved.resolved() == resolved
    for wrong in ({"rows": 0}, {"positions": 0}, {"rows": "most"}, {"positions": "memory"}):
        with pytest.raises(RecipeError):
            Machine(**wrong)
