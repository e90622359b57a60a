"""Outer steps: two machines have the weights of a naive form that trains both in one process, through kills, too."""

import json
import os
import signal
import time
from dataclasses import replace
from io import StringIO
from math import prod

import pytest
import tiny
import torch
from foreign_objective import Halves
from rich.console import Console
from tiny_machines import ended, machines
from torch import distributed
from train.test_loop import MACHINE, Interrupted, shards  # noqa: F401, shards is a fixture

from lilliput.base.errors import MachineError, RecipeError
from lilliput.base.units import Steps
from lilliput.data.batch import Cursor
from lilliput.data.shards import Shards
from lilliput.objectives.noise import Noise, draw_variant
from lilliput.optim.optimizer import set_multiplier
from lilliput.train import checkpoint
from lilliput.train.loop import Trainer
from lilliput.train.metrics_file import measured_of, read_metrics, steps_of
from lilliput.train.metrics_log import MetricsLogger
from lilliput.train.outer_ranks import CHANGES, OuterRanks, outer_steps
from lilliput.train.outer_sgd import OuterSGD
from lilliput.train.outer_steps import OuterSteps
from lilliput.train.phase import KEPT_FOLDER, Stage, StepPlan
from lilliput.train.resuming import BEFORE_DECAY
from lilliput.train.store_gather import StoreGather
from lilliput.train.store_link import StoreLink
from lilliput.train.trainable import Trainable
from lilliput.train.validation import make_validator

EVERY, LR, MOMENTUM, SEED, CLIP = 5, 0.7, 0.9, 3, 1.0
PHASE = tiny.pretraining(steps=18, keep=(Steps(7),), clip=CLIP)
HALVES = tiny.pretraining(steps=12, stages=(Stage(share=1.0, objective=Halves()),), clip=CLIP)


def naive(shards, phase, count):  # noqa: F811
    """DiLoCo with all machines in one process, straight from the paper: weights and average at the end, losses."""
    torch.set_num_threads(1)
    plan, reader = StepPlan(phase), phase.data.open(shards)
    objectives = [stage.objective for stage in phase.stages]
    machines = [Trainable.of_phase(tiny.HGRN2_SPEC.build(seed=0), objectives, SEED) for _ in range(count)]
    optimizers = [phase.optimizer.build(machine) for machine in machines]
    anchor = {name: one.detach().clone() for name, one in machines[0].named_parameters()}
    velocity = {name: torch.zeros_like(one) for name, one in anchor.items()}
    average, cursor, before, losses = dict(anchor), Cursor(), 0, [[] for _ in machines]
    outer = {*range(EVERY, plan.steps, EVERY), *plan.kept_steps, plan.stable_until, plan.steps}
    for step in range(plan.steps):
        stage = plan.stage(step)
        objective, (length, overlap) = phase.stages[stage].objective, phase.row_tokens(stage)
        share = plan.rows // count
        for rank, (machine, optimizer) in enumerate(zip(machines, optimizers, strict=True)):
            batch, cursor = reader.read(cursor, share, length, overlap)
            batch = replace(batch, row=torch.arange(rank * share, (rank + 1) * share))
            set_multiplier(optimizer, phase.schedule(step, plan.steps))
            module, noise = machine.objective(stage), Noise("cpu")
            noise.begin_step(SEED, step)
            variant = draw_variant(SEED, step, module.variants)
            progress = torch.tensor(step / plan.steps)
            found = module(batch, objective.denominator(batch), variant, progress, noise)
            found.loss.backward()
            losses[rank].append(float(found.terms[objective.headline]))
            machine.keep_active(stage, variant)
            torch.nn.utils.clip_grad_norm_([one for _, one in machine.named_parameters()], CLIP)
            optimizer.step()
            optimizer.zero_grad()
        if step + 1 in outer:
            live = [dict(machine.named_parameters()) for machine in machines]
            decay = prod(min(0.9, (1 + one) / (10 + one)) for one in range(before + 1, step + 2))
            for name, old in anchor.items():
                change = sum(old - one[name].detach() for one in live) / count
                velocity[name] = MOMENTUM * velocity[name] + change
                anchor[name] = old - LR * (change + MOMENTUM * velocity[name])
                average[name] = torch.lerp(average[name], anchor[name], 1 - decay)
                for one in live:
                    one[name].data.copy_(anchor[name])
            before = step + 1
    return anchor, average, losses


class Killed(MetricsLogger):
    """A machine that may be killed after a step."""

    after = None

    def log_step(self, step, *numbers):
        super().log_step(step, *numbers)
        if self.after is not None and step >= self.after:
            os.kill(os.getpid(), signal.SIGKILL)


def train(tokens, folder, phase, store, reads=None, **how):
    """Train a machine's part of a phase in its folder; `reads` interrupts it after so many."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    reader = phase.data.open(tokens)
    if reads is not None:
        reader = Interrupted(reader, reads)
        reader.skip = reader.reader.skip
    model = tiny.HGRN2_SPEC.build(seed=0)
    average = Trainer(
        model,
        phase,
        reader,
        MACHINE,
        folder=folder / "checkpoints",
        seed=SEED,
        report=lambda line: (folder / "said.txt").open("a").write(f"{line}\n"),
        ranks=OuterRanks(store, **{"every": EVERY} | how),
        before_decay=folder / BEFORE_DECAY,
        kept=folder / KEPT_FOLDER,
    ).train(
        lambda step: Killed(folder / "metrics.jsonl", Console(file=StringIO()), phase.name, 18, step, 2.0),
        make_validator(tokens, phase.length, MACHINE),
    )
    return dict(model.named_parameters()), average


def machine(rank, port, tokens, folder, phase, killed_after, how):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    Killed.after = killed_after
    store = StoreGather(StoreLink(2.0), rank, 2)
    train({"texts": Shards(tokens)}, folder / f"rank-{rank}", phase, store, **how)
    assert not distributed.is_initialized(), "no gradient is sent, so no process group is needed"


@pytest.fixture
def start(shards, tmp_path):  # noqa: F811
    with machines(machine) as begin:

        def start_one(rank, phase=PHASE, port=None, killed_after=None, **how):
            return begin(rank, shards["texts"].folder, tmp_path, phase, killed_after, how, port=port)

        yield start_one


def alone():
    return StoreGather(StoreLink(1.0), 0, 1)


def equal_to_naive(shards, folder, phase):  # noqa: F811
    """Compare checkpoints, averages and losses of both machines with the naive form, bit for bit."""
    anchor, average, losses = naive(shards, phase, 2)
    for rank in (0, 1):
        last = checkpoint.newest(folder / f"rank-{rank}" / "checkpoints", print)
        found = dict(last.tensors["weights"]) | dict(last.tensors["objectives"])
        for name, one in anchor.items():
            assert torch.equal(one, found[name]), (rank, name)
            assert torch.equal(average[name], last.tensors["average"][name]), (rank, name)
        lines = steps_of(read_metrics(folder / f"rank-{rank}" / "metrics.jsonl"))
        headline = phase.stages[0].objective.headline
        assert [line[headline] for line in lines] == pytest.approx(losses[rank], abs=0)


@pytest.mark.parametrize("phase", [PHASE, HALVES], ids=["next token", "a foreign objective"])
def test_two_machines_have_the_weights_of_the_naive_form_bit_for_bit(start, shards, tmp_path, phase):  # noqa: F811
    ended(start(0, phase), start(1, phase))
    equal_to_naive(shards, tmp_path, phase)


def test_checkpoints_that_outlive_the_phase_are_of_all_machines(start, shards, tmp_path):  # noqa: F811
    ended(start(0), start(1))
    for where, step in ((BEFORE_DECAY, 9), (KEPT_FOLDER, 7), ("checkpoints", 18)):
        one, other = (checkpoint.load(checkpoint.at_step(tmp_path / f"rank-{n}" / where, step)) for n in (0, 1))
        assert one.progress == other.progress
        for kind in ("weights", "average", "exchange"):
            assert all(torch.equal(value, other.tensors[kind][name]) for name, value in one.tensors[kind].items())
        moments = one.tensors["optimizer"].items()
        assert any(not torch.equal(value, other.tensors["optimizer"][name]) for name, value in moments), "own text"
    measured = [measured_of(read_metrics(tmp_path / f"rank-{n}" / "metrics.jsonl"))[-1]["heldout"] for n in (0, 1)]
    assert measured[0] == measured[1], "at the end there is one model"


@pytest.mark.slow
@pytest.mark.parametrize("after", [4, 6, 11])
def test_a_machine_that_is_killed_resumes_and_the_other_waits_for_it(start, shards, tmp_path, after):  # noqa: F811
    """It is killed before, right behind and some steps behind an outer step, and resumes before or at it."""
    waiting, killed = start(0), start(1, killed_after=after)
    ended(killed, code=-signal.SIGKILL)
    said = tmp_path / "rank-0" / "said.txt"
    while not said.exists() or "waiting for rank 1" not in said.read_text():
        assert waiting.is_alive()
        time.sleep(0.05)
    ended(waiting, start(1))
    equal_to_naive(shards, tmp_path, PHASE)


@pytest.mark.slow
def test_machines_and_the_store_may_lose_power_together(start, shards, tmp_path):  # noqa: F811
    """One resumes before an outer step that the other has taken: its change is on that one's disk."""
    ended(start(0, killed_after=6), start(1, killed_after=6), code=-signal.SIGKILL)
    behind = tmp_path / "rank-1" / "checkpoints"
    for step in (one for one in checkpoint.steps_in(behind) if one > 4):
        checkpoint.remove(checkpoint.at_step(behind, step))
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ended(start(0, port=store.port), start(1, port=store.port))
    equal_to_naive(shards, tmp_path, PHASE)
    del store


def test_changes_may_travel_in_half_the_bytes(start, shards, tmp_path):  # noqa: F811
    def sent():
        return sum(line.get("bytes_sent", 0) for line in read_metrics(tmp_path / "rank-0" / "metrics.jsonl"))

    ended(start(0), start(1))
    whole = sent()
    for rank in (0, 1):
        (tmp_path / f"rank-{rank}").rename(tmp_path / f"fp32-{rank}")
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ended(*(start(rank, gradient_dtype=torch.bfloat16, port=store.port) for rank in (0, 1)))
    assert 0.5 * whole < sent() < 0.55 * whole  # names of parameters, too
    one, other = (checkpoint.newest(tmp_path / f"rank-{n}" / "checkpoints", print).tensors for n in (0, 1))
    assert all(torch.equal(value, other["weights"][name]) for name, value in one["weights"].items())
    del store


def test_one_machine_takes_outer_steps_and_resumes_bit_for_bit(shards, tmp_path):  # noqa: F811
    anchor, average, _ = naive(shards, PHASE, 1)
    straight, averaged = train(shards, tmp_path / "straight", PHASE, alone())
    assert all(torch.equal(one, anchor[name]) for name, one in straight.items())
    assert all(torch.equal(one, average[name]) for name, one in averaged.items())
    for reads in (6, 11):
        with pytest.raises(KeyboardInterrupt):
            train(shards, tmp_path / "resumed", PHASE, alone(), reads=reads)
    resumed, _ = train(shards, tmp_path / "resumed", PHASE, alone())
    assert all(torch.equal(one, anchor[name]) for name, one in resumed.items())
    clock = ("seconds", "tokens_per_second")
    one, other = (
        [{name: value for name, value in line.items() if name not in clock} for line in read_metrics(path)]
        for path in (tmp_path / "straight/metrics.jsonl", tmp_path / "resumed/metrics.jsonl")
    )
    assert one == other
    assert not (tmp_path / "straight" / "checkpoints" / CHANGES).exists(), "nobody asks for them"


def test_the_outer_optimizer_is_sgd_with_nesterov_momentum():
    weights = torch.nn.Parameter(torch.randn(50))
    twin = torch.nn.Parameter(weights.detach().clone())
    ours, theirs = OuterSGD({"w": weights}, 0.7, 0.9), torch.optim.SGD([twin], lr=0.7, momentum=0.9, nesterov=True)
    for _ in range(4):
        changes = [{"w": torch.randn(50)} for _ in range(3)]
        ours.step(changes)
        twin.grad = torch.stack([one["w"] for one in changes]).mean(0)
        theirs.step()
        torch.testing.assert_close(weights, twin)


def test_outer_steps_come_every_so_often_and_where_a_checkpoint_lasts():
    assert sorted(outer_steps(StepPlan(PHASE), 5)) == [5, 7, 9, 10, 15, 18]
    assert sorted(outer_steps(StepPlan(PHASE), 500)) == [7, 9, 18]


def test_settings_that_mean_nothing_are_refused(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(RecipeError, match="momentum"):
        OuterSteps(momentum=1.5)
    with pytest.raises(RecipeError, match="gradient_dtype cannot be 'int8'"):
        OuterSteps(gradient_dtype="int8")
    with (
        pytest.raises(MachineError, match="2 machines, and 1 were started together") as error,
        OuterSteps(machines=2).join("cpu"),
    ):
        pass
    assert "torchrun --nnodes 2" in error.value.hint
    with OuterSteps().resolved().join("cpu") as ranks:
        assert json.dumps(ranks.rows(0, 5)) == "[[0, 5]]"
    with pytest.raises(MachineError, match="a step of 1 rows cannot be shared by 2 ranks"):
        OuterRanks(StoreGather(StoreLink(1.0), 0, 2)).rows(0, 1)
