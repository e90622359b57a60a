"""Blocks that take each step together: what they share is equal everywhere, as if one machine had trained all of it."""

import signal
import time
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import tiny
import torch
from foreign_objective import Halves
from tiny_machines import ended, machines
from torch import nn
from train.test_loop import shards, train  # noqa: F401, shards is a fixture
from train.test_owners import KINDS, LIMIT, PHASE, owner

from lilliput.base.errors import MachineError
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.objective import Losses
from lilliput.objectives.routes.diffusion_blocks import DiffusionBlocks
from lilliput.train import checkpoint
from lilliput.train.block_ownership import BlockOwnership
from lilliput.train.joint_blocks import JointBlocks
from lilliput.train.metrics_file import read_metrics, steps_of
from lilliput.train.phase import Stage, StepPlan
from lilliput.train.store_gather import StoreGather
from lilliput.train.store_link import StoreLink
from lilliput.train.trainable import Trainable

TWO, FOUR = (NextToken(route=DiffusionBlocks(blocks=blocks)) for blocks in (2, 4))
DEEP = replace(tiny.HGRN2_SPEC, layers=4)


def phase(objective, **how):
    return tiny.pretraining(steps=24, stages=(Stage(share=1.0, objective=objective),), **how)


def joint(rank, port, tokens, folder, phase, how):
    owner(rank, port, tokens, folder, phase, {"shared": "allreduce"} | how)


@pytest.fixture
def start(shards, tmp_path):  # noqa: F811
    with machines(joint) as begin:
        tokens = shards["texts"].folder
        yield lambda rank, phase, folder=tmp_path, **how: begin(rank, tokens, folder, phase, how)


@dataclass(frozen=True, kw_only=True)
class Together:
    """All blocks in one step, each on a part of the rows: what several machines compute, on one."""

    inner: NextToken
    tokens_per_position: int = 1
    headline: str = "cross_entropy"

    def row_length(self, length):
        return self.inner.row_length(length)

    def denominator(self, batch):
        return self.inner.denominator(batch)

    def build(self, model, parts):
        return TogetherModule(self.inner.build(model, parts))


class TogetherModule(nn.Module):
    variants = 1

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def active(self, variant):
        return {one for each in range(self.inner.variants) for one in self.inner.active(each)}

    def forward(self, batch, denominator, variant, progress, noise):
        rows = len(batch.row) // self.inner.variants
        found = []
        for each in range(self.inner.variants):
            part = slice(each * rows, (each + 1) * rows)
            own = replace(
                batch, **{name: getattr(batch, name)[part] for name in ("tokens", "document_ids", "weight", "row")}
            )
            found.append(self.inner(own, denominator, each, progress, noise))
        terms = {name: sum(one.terms[name] for one in found) for name in found[0].terms}
        return Losses(sum(one.loss for one in found), terms)

    def evaluate(self, batch):
        return self.inner.evaluate(batch)


def last(folder, rank):
    return checkpoint.newest(folder / f"rank-{rank}" / "checkpoints", print)


def assert_equal(one, other):
    for kind in KINDS:
        assert one.tensors[kind].keys() == other.tensors[kind].keys()
        for name, value in one.tensors[kind].items():
            assert torch.equal(value, other.tensors[kind][name]), (kind, name)


def test_two_machines_train_as_one_that_takes_all_blocks_in_each_step(start, shards, tmp_path):  # noqa: F811
    ended(*(start(rank, phase(TWO)) for rank in (0, 1)))
    assert_equal(last(tmp_path, 0), last(tmp_path, 1))
    _, _, metrics = train(shards, tmp_path / "one", phase=phase(Together(inner=TWO)))
    one = checkpoint.newest(tmp_path / "one" / "checkpoints", print)
    first = dict(tiny.HGRN2_SPEC.build(seed=0).named_parameters())
    for name, value in last(tmp_path, 0).tensors["weights"].items():
        torch.testing.assert_close(value, one.tensors["weights"][name], rtol=1e-3, atol=1e-4, msg=name)
        assert not torch.equal(value, first[name]), name
    each = [steps_of(read_metrics(tmp_path / f"rank-{rank}" / "metrics.jsonl")) for rank in (0, 1)]
    for name in ("cross_entropy", "grad_norm"):
        ours, theirs = ([line[name] for line in lines] for lines in (each[0], steps_of(metrics)))
        assert ours == [line[name] for line in each[1]]
        assert ours == pytest.approx(theirs, rel=1e-4), name


@pytest.mark.parametrize("gradient_dtype", [None, torch.bfloat16])
def test_a_machine_has_as_many_rows_as_blocks_and_sends_what_is_shared_alone(start, tmp_path, gradient_dtype):
    how = {"owners": (0, 0, 0, 1), "spec": DEEP, "gradient_dtype": gradient_dtype}
    ended(*(start(rank, phase(FOUR), **how) for rank in (0, 1)))
    assert_equal(last(tmp_path, 0), last(tmp_path, 1))
    model = DEEP.build(seed=0)
    shared = [*model.embedding.parameters(), *model.norm.parameters()]
    shared += [] if DEEP.tie_embeddings else [*model.output.parameters()]
    width = 4 if gradient_dtype is None else 2
    lines = steps_of(read_metrics(tmp_path / "rank-0" / "metrics.jsonl"))
    assert lines[0]["bytes_sent"] == width * sum(one.numel() for one in shared), "to the one other machine"
    moved = last(tmp_path, 0).tensors["weights"]
    assert all(not torch.equal(one, moved[name]) for name, one in model.named_parameters()), "each block was trained"


@pytest.mark.slow
@pytest.mark.parametrize("killed_after", [10, 24])
def test_a_machine_that_is_killed_ends_the_step_of_all_and_they_resume_to_the_bit(start, tmp_path, killed_after):
    """After the last step, too, of which one machine then has a checkpoint, and the other has not."""
    undisturbed = replace(phase(TWO), name="undisturbed")  # the store has what was handed out under the other name
    ended(*(start(rank, undisturbed, tmp_path / "whole") for rank in (0, 1)))
    survivor, victim = start(0, phase(TWO)), start(1, phase(TWO), killed_after=killed_after)
    ended(victim, code=-signal.SIGKILL)
    survivor.join(60)
    assert survivor.exitcode == 1
    ended(*(start(rank, phase(TWO)) for rank in (0, 1)))
    for rank in (0, 1):
        assert_equal(last(tmp_path, rank), last(tmp_path / "whole", 0))


@pytest.mark.slow
def test_a_machine_that_is_killed_while_they_merge_needs_no_step_of_the_other(start, tmp_path):
    """Both have taken all steps, and one of them waits for what the other has."""
    survivor, victim = start(0, phase(TWO)), start(1, phase(TWO), killed_merging=True)
    ended(victim, code=-signal.SIGKILL)
    time.sleep(1.0)
    assert survivor.is_alive()
    ended(start(1, phase(TWO)), survivor)
    assert_equal(last(tmp_path, 0), last(tmp_path, 1))


def ranks(objective, *, owners=(), count=2, rows=4, shared="allreduce"):
    plan = StepPlan(replace(phase(objective), batch_tokens=rows * 32))
    trainable = Trainable.of_phase(tiny.HGRN2_SPEC.build(seed=0), [objective], seed=3)
    blocks = BlockOwnership("pretrain", trainable, count, owners)
    blocks.check_shared(shared)
    everyone = SimpleNamespace(rank=0, count=count, gradient_dtype=None)  # no gradient is sent
    return JointBlocks(everyone, blocks, StoreGather(StoreLink(LIMIT), 0, count), plan, trainable, every=4)


def test_rows_follow_blocks():
    assert ranks(TWO).rows(0, 7) == [(0, 3), (1, 4)]
    with pytest.raises(MachineError, match="a step of 1 rows leaves none for rank 0, which owns 1 of 2 blocks"):
        ranks(TWO).rows(0, 1)


def test_steps_that_cannot_be_taken_together_are_refused():
    frozen = PHASE.stages[0].objective
    with pytest.raises(MachineError, match="train no parameter together"):
        ranks(frozen)
    with pytest.raises(MachineError, match="blocks of several machines train embedding.weight, norm.weight"):
        ranks(TWO, shared="freeze")


def test_machines_of_a_shared_objective_draw_from_their_own_blocks():
    assert ranks(Halves()).candidates(0, range(2)) == [0]
    assert ranks(Halves(), owners=(1, 0)).candidates(0, range(2)) == [1]
