"""Ranks that own different blocks: one machine's weights, settlings that wait for nobody, one merged checkpoint."""

import json
import os
import signal
import time
from dataclasses import replace
from io import StringIO

import pytest
import tiny
import torch
from cable import cable
from foreign_objective import Halves
from rich.console import Console
from tiny_machines import ended, machines
from torch import distributed
from train.test_loop import MACHINE, shards, train  # noqa: F401, shards is a fixture

from lilliput.base.errors import MachineError, RunError
from lilliput.base.units import Steps, Tokens
from lilliput.data.shards import Shards
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.routes.diffusion_blocks import DiffusionBlocks
from lilliput.train import checkpoint
from lilliput.train.block_owners import BlockOwners
from lilliput.train.block_parallel import BlockParallel
from lilliput.train.loop import Trainer
from lilliput.train.merge import merged
from lilliput.train.metrics_file import read_metrics, steps_of
from lilliput.train.metrics_log import MetricsLogger
from lilliput.train.phase import KEPT_FOLDER, Stage, StepPlan
from lilliput.train.resuming import BEFORE_DECAY
from lilliput.train.store_link import StoreLink
from lilliput.train.trainable import Trainable
from lilliput.train.validation import make_validator

FROZEN = NextToken(route=DiffusionBlocks(blocks=2, freeze_shared=True))
BAGS = NextToken(bag=2, route=DiffusionBlocks(blocks=2, freeze_shared=True))
PHASE = tiny.pretraining(
    steps=36, stages=(Stage(share=0.5, objective=FROZEN), Stage(share=0.5, objective=BAGS)), keep=(Steps(10),)
)
SHARING = tiny.pretraining(steps=24, stages=(Stage(share=1.0, objective=Halves()),))
EVERY, LIMIT, SLOW = 4, 2.0, 1
KINDS = ("weights", "objectives", "average", "optimizer")


class Paced(MetricsLogger):
    """A rank of some speed, which may be killed after a step, or once all have handed out their metrics."""

    seconds, killed_after, killed_merging = 0.0, None, False

    def log_step(self, step, *numbers):
        super().log_step(step, *numbers)
        time.sleep(self.seconds)
        if self.killed_after is not None and step >= self.killed_after:
            time.sleep(1.0)  # its last checkpoint is written meanwhile, on a busy machine, too
            os.kill(os.getpid(), signal.SIGKILL)

    def merge(self, *arguments):
        if self.killed_merging:
            os.kill(os.getpid(), signal.SIGKILL)
        super().merge(*arguments)


class Timed(BlockOwners):
    """Owners that note how long each settling took, and what was said."""

    def of_phase(self, plan, trainable, report, **how):
        return super().of_phase(plan, trainable, self.log, **how)

    def log(self, line):
        with open(self.said, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def settle(self, *arguments):
        begun = time.monotonic()
        steps = super().settle(*arguments)
        self.log({"seconds": time.monotonic() - begun})
        return steps


def owner(rank, port, tokens, folder, phase, how):
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    mine = folder / f"rank-{rank}"
    mine.mkdir(parents=True, exist_ok=True)
    opened = {"texts": Shards(tokens)}
    Paced.seconds = how.pop("seconds", 0.0)
    Paced.killed_after = how.pop("killed_after", None)
    Paced.killed_merging = how.pop("killed_merging", False)
    model = how.pop("spec", tiny.HGRN2_SPEC).build(seed=0)
    ranks = Timed(rank, 2, StoreLink(LIMIT), **{"every": EVERY} | how)
    has_group = how.get("shared") == "allreduce"
    ranks.said = mine / "said.jsonl"
    Trainer(
        model,
        phase,
        phase.data.open(opened),
        MACHINE,
        folder=mine / "checkpoints",
        seed=3,
        report=lambda line: None,
        ranks=ranks,
        before_decay=mine / BEFORE_DECAY,
        kept=mine / KEPT_FOLDER,
    ).train(
        lambda step: Paced(mine / "metrics.jsonl", Console(file=StringIO()), phase.name, 24, step, 2.0),
        make_validator(opened, phase.length, MACHINE),
    )
    assert has_group or not distributed.is_initialized(), "blocks need no process group: no gradient is sent"
    trained = {name: one.detach() for name, one in model.named_parameters()}
    last = checkpoint.newest(mine / "checkpoints", print)
    assert all(torch.equal(one, last.tensors["weights"][name]) for name, one in trained.items())
    if distributed.is_initialized():
        distributed.destroy_process_group()


@pytest.fixture
def start(shards, tmp_path):  # noqa: F811
    with machines(owner) as begin:
        tokens = shards["texts"].folder
        yield lambda rank, phase=PHASE, port=None, **how: begin(rank, tokens, tmp_path, phase, how, port=port)


def said(folder, rank):
    return [json.loads(line) for line in (folder / f"rank-{rank}" / "said.jsonl").read_text().splitlines()]


def equal_to_one(shards, folder, phase=PHASE):  # noqa: F811
    """Compare the checkpoints of both ranks with those of one machine, bit for bit, and the metrics."""
    _, _, metrics = train(shards, folder / "one", phase=phase, keep=True)
    places = [("checkpoints", 24), (BEFORE_DECAY, 12), *((KEPT_FOLDER, step) for step in (10,) if phase.keep)]
    for rank in (0, 1):
        for where, step in places:
            one, mine = (
                checkpoint.load(checkpoint.at_step(folder / each / where, step)) for each in ("one", f"rank-{rank}")
            )
            assert one.progress == mine.progress
            for kind in KINDS:
                assert one.tensors[kind].keys() == mine.tensors[kind].keys()
                for name, value in one.tensors[kind].items():
                    assert torch.equal(value, mine.tensors[kind][name]), (rank, where, kind, name)
        mine = steps_of(read_metrics(folder / f"rank-{rank}" / "metrics.jsonl"))
        clock = ("seconds", "tokens_per_second", "bytes_sent", "bytes_received")
        assert [{name: one for name, one in line.items() if name not in clock} for line in mine] == [
            {name: one for name, one in line.items() if name not in clock} for line in steps_of(metrics)
        ]


def test_two_machines_have_the_weights_of_one_bit_for_bit(start, shards, tmp_path):  # noqa: F811
    ended(start(0), start(1))
    equal_to_one(shards, tmp_path)


@pytest.mark.slow
def test_a_machine_that_is_killed_resumes_and_a_slow_one_holds_nobody_up(start, shards, tmp_path):  # noqa: F811
    """The slow one is a third as fast; no settling takes longer than its limit, and nothing is lost."""
    fast, slow = start(0, seconds=0.03), start(SLOW, seconds=0.1, killed_after=10)
    ended(slow, code=-signal.SIGKILL)
    while not any("waiting for rank 1" in line for line in said(tmp_path, 0) if isinstance(line, str)):
        assert fast.is_alive(), "the fast one has to wait for the other at its end, and to say so"
        time.sleep(0.05)
    ended(fast, start(SLOW, seconds=0.1))
    equal_to_one(shards, tmp_path)
    for rank in (0, 1):
        lines = said(tmp_path, rank)
        assert all(line["seconds"] < 2 * LIMIT for line in lines if isinstance(line, dict))


@pytest.mark.slow
def test_a_store_that_is_gone_for_a_while_is_noted_and_training_continues(start, shards, tmp_path):  # noqa: F811
    """The store is started again empty, at the same port, as by another torchrun."""
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    port = store.port
    both = [start(rank, port=port, seconds=0.2) for rank in (0, 1)]
    while not all((tmp_path / f"rank-{rank}" / "checkpoints" / "step-000004").exists() for rank in (0, 1)):
        time.sleep(0.05)
    del store
    time.sleep(1.5)
    store = distributed.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    ended(*both)
    equal_to_one(shards, tmp_path)
    for rank in (0, 1):
        assert any("nothing is exchanged" in line for line in said(tmp_path, rank) if isinstance(line, str))
    del store


@pytest.mark.slow
def test_a_cable_that_is_pulled_for_three_limits_costs_a_limit_at_a_time_and_loses_nothing(start, shards, tmp_path):  # noqa: F811
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with cable(store.port) as link:
        both = [start(0, port=store.port, seconds=0.2), start(1, port=link.port, seconds=0.2)]
        while not all((tmp_path / f"rank-{rank}" / "checkpoints" / "step-000004").exists() for rank in (0, 1)):
            time.sleep(0.05)
        link.pull()
        time.sleep(3 * LIMIT)
        link.plug()
        ended(*both)
    equal_to_one(shards, tmp_path)
    lines = said(tmp_path, 1)
    assert any("nothing is exchanged" in line for line in lines if isinstance(line, str))
    waited = [line["seconds"] for rank in (0, 1) for line in said(tmp_path, rank) if isinstance(line, dict)]
    assert max(waited) < 2 * LIMIT, "a settling takes no longer than its limit, and what its steps take"
    del store


def test_machines_that_share_parameters_take_means_and_one_machine_can_resume(start, shards, tmp_path):  # noqa: F811
    ended(*(start(rank, SHARING, shared="periodic") for rank in (0, 1)))
    first = dict(tiny.HGRN2_SPEC.build(seed=0).named_parameters())
    one, other = (checkpoint.newest(tmp_path / f"rank-{rank}" / "checkpoints", print) for rank in (0, 1))
    for kind in KINDS:
        assert one.tensors[kind].keys() == other.tensors[kind].keys()
        assert all(torch.equal(value, other.tensors[kind][name]) for name, value in one.tensors[kind].items())
    assert sum(not torch.equal(value, first[name]) for name, value in one.tensors["weights"].items()) > len(first) / 2
    longer = replace(SHARING, tokens=Tokens(30 * 4 * 32))
    _, _, metrics = train(shards, tmp_path / "rank-0", phase=longer)
    assert [line["step"] for line in steps_of(metrics)] == list(range(1, 31))


def test_a_merge_takes_each_parameter_from_its_owner_and_the_mean_of_shared_ones():
    def part(value, *names, step=4):
        tensors = {kind: {} for kind in KINDS}
        for name in names:
            tensors["weights"][name] = torch.full((2,), value)
            tensors["optimizer"][f"{name}/exp_avg"] = torch.full((2,), 10 * value)
        return checkpoint.Checkpoint(progress=checkpoint.Progress(step=step), tensors=tensors)

    parts, owned = [part(1.0, "a", "shared"), part(3.0, "b", "shared")], [{"a", "shared"}, {"b", "shared"}]
    found = merged(parts, owned).tensors
    assert {name: float(one[0]) for name, one in found["weights"].items()} == {"a": 1.0, "b": 3.0, "shared": 2.0}
    assert float(found["optimizer"]["shared/exp_avg"][0]) == 10.0, "moments are of one rank"
    with pytest.raises(RunError, match="the ranks are at steps 4, 8"):
        merged([parts[0], part(1.0, "b", step=8)], owned)


@pytest.mark.parametrize(
    ("phase", "how", "what"),
    [
        (SHARING, {}, "blocks of several machines train objective.0.scale"),
        (PHASE, {"owners": (0, 1, 1)}, "owners names the ranks of 3 blocks, and a stage of 'pretrain' has 2"),
        (
            tiny.pretraining(stages=(Stage(share=0.5, objective=FROZEN), Stage(share=0.5, objective=NextToken()))),
            {},
            "a stage of 'pretrain' has 1 blocks for 2 machines",
        ),
    ],
)
def test_phases_that_machines_cannot_train_are_refused(phase, how, what, tmp_path):
    trainable = Trainable.of_phase(tiny.HGRN2_SPEC.build(seed=0), [stage.objective for stage in phase.stages], seed=3)
    with pytest.raises(MachineError, match=what):
        BlockOwners(0, 2, StoreLink(LIMIT), **how).of_phase(StepPlan(phase), trainable, print, folder=tmp_path)


def test_each_machine_has_a_block():
    with pytest.raises(MachineError, match=r"owners is \(0, 0, 0, 0\), and the 2 machines are 0 to 1"):
        BlockParallel(machines=2, owners=(0, 0, 0, 0))
    with (
        pytest.raises(MachineError, match="2 machines, and none were started together"),
        BlockParallel(machines=2).join("cpu"),
    ):
        pass
