"""Ranks that own different layers: their own steps and checkpoints, and a settling that waits for nobody for long."""

import json
import os
import signal
import time
from dataclasses import replace
from io import StringIO
from multiprocessing import get_context

import pytest
import tiny
import torch
from foreign_objective import Halves
from owners_of_halves import OwnersOfHalves
from rich.console import Console
from safetensors.torch import load
from torch import distributed
from train.test_loop import MACHINE, shards, train  # noqa: F401, shards is a fixture

from lilliput.base.errors import RunError
from lilliput.base.units import Tokens
from lilliput.data.shards import Shards
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.routes.diffusion_blocks import DiffusionBlocks
from lilliput.train import checkpoint
from lilliput.train.loop import Trainer
from lilliput.train.merge import merged
from lilliput.train.metrics_file import read_metrics, steps_of
from lilliput.train.metrics_log import MetricsLogger
from lilliput.train.phase import Stage
from lilliput.train.trainable import Trainable
from lilliput.train.validation import make_validator

PHASE = tiny.pretraining(steps=24, stages=(Stage(share=1.0, objective=Halves()),))
EVERY, LIMIT, SLOW = 4, 0.5, 1


class Paced(MetricsLogger):
    """A rank of some speed, which may be killed after a step."""

    seconds, killed_after = 0.0, None

    def log_step(self, step, *numbers):
        super().log_step(step, *numbers)
        time.sleep(self.seconds)
        if step == self.killed_after:
            os.kill(os.getpid(), signal.SIGKILL)


def owner(rank, port, tokens, folder, killed_after, phase=PHASE, every=EVERY):
    torch.set_num_threads(1)
    mine = folder / f"rank-{rank}"
    mine.mkdir(parents=True, exist_ok=True)
    opened = {"texts": Shards(tokens)}
    Paced.seconds, Paced.killed_after = (0.3 if rank == SLOW else 0.1), killed_after
    Trainer(
        tiny.HGRN2_SPEC.build(seed=0),
        phase,
        phase.data.open(opened),
        MACHINE,
        folder=folder / "checkpoints",
        seed=3,
        report=lambda line: None,
        ranks=OwnersOfHalves(rank, port, every=every, limit=LIMIT, log=mine / "settled.jsonl"),
    ).train(
        lambda step: Paced(mine / "metrics.jsonl", Console(file=StringIO()), phase.name, 24, step, 2.0),
        make_validator(opened, phase.length, MACHINE),
    )


def test_a_slow_owner_that_is_killed_once_holds_nobody_up_and_loses_nothing(shards, tmp_path):  # noqa: F811
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes = get_context("forkserver")

    def start(rank, killed_after=None):
        given = (rank, store.port, shards["texts"].folder, tmp_path, killed_after)
        process = processes.Process(target=owner, args=given, daemon=True)
        process.start()
        return process

    fast, slow = start(0), start(SLOW, killed_after=10)
    slow.join(120)
    assert slow.exitcode == -signal.SIGKILL
    slow = start(SLOW)
    for process in (fast, slow):
        process.join(120)
        assert process.exitcode == 0
    first = dict(tiny.HGRN2_SPEC.build(seed=0).named_parameters())
    merged = load(store.get("half-0")) | load(store.get("half-1"))
    assert {name for name in first if name.startswith("layers.")} == merged.keys()
    for rank in (0, 1):
        mine = tmp_path / f"rank-{rank}"
        settled = [json.loads(line) for line in (mine / "settled.jsonl").read_text().splitlines()]
        assert all(one["waited"] < LIMIT + 0.2 for one in settled), settled
        steps = steps_of(read_metrics(mine / "metrics.jsonl"))
        assert [line["step"] for line in steps] == list(range(1, 25)), "every step, each once"
        last = checkpoint.newest(tmp_path / "checkpoints" / f"rank-{rank}", print)
        half = {name: one for name, one in merged.items() if name.startswith(f"layers.{rank}.")}
        assert last.progress.step == 24 and all(
            torch.equal(one, last.tensors["weights"][name]) for name, one in half.items()
        )
        assert sum(not torch.equal(one, first[name]) for name, one in half.items()) > len(half) / 2
        assert steps[-1]["denoising"] < steps[0]["denoising"]
    seen = [json.loads(line)["seen"] for line in (tmp_path / "rank-1" / "settled.jsonl").read_text().splitlines()]
    assert seen[-1] == 24 and any(one > 0 for one in seen), "the slow one had the fast one's half all along"


def test_a_merge_is_an_ordinary_checkpoint_that_one_rank_resumes(shards, tmp_path):  # noqa: F811
    """Each half with its average and moments from its owner; what both train, and where the text is, from the first."""
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes = get_context("forkserver")
    both = [
        processes.Process(target=owner, args=(rank, store.port, shards["texts"].folder, tmp_path, None), daemon=True)
        for rank in (0, 1)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    trainable = Trainable.of_phase(tiny.HGRN2_SPEC.build(seed=0), [Halves()], seed=3)
    ranks = [checkpoint.newest(tmp_path / "checkpoints" / f"rank-{rank}", print) for rank in (0, 1)]
    found = merged(ranks, [trainable.active(0, variant) for variant in (0, 1)])
    for kind in ("weights", "average", "optimizer"):
        for name, value in found.tensors[kind].items():
            source = ranks[1] if name.startswith("layers.1.") else ranks[0]
            assert torch.equal(value, source.tensors[kind][name]), (kind, name)
    halves = {name.split("/")[0].split(".")[1] for name in found.tensors["optimizer"] if name.startswith("layers.")}
    assert halves == {"0", "1"}, "moments of both"
    checkpoint.save(tmp_path / "merged" / "checkpoints", found)
    longer = replace(PHASE, tokens=Tokens(30 * 4 * 32))
    _, _, metrics = train(shards, tmp_path / "merged", phase=longer)
    assert [line["step"] for line in steps_of(metrics)] == list(range(25, 31))
    with pytest.raises(RunError, match="the ranks are at steps 24, 12"):
        merged([ranks[0], replace(ranks[1], progress=replace(ranks[1].progress, step=12))], [{}, {}])


FROZEN = NextToken(route=DiffusionBlocks(blocks=2, freeze_shared=True))
DENOISING = replace(PHASE, stages=(Stage(share=1.0, objective=FROZEN),))
COLLECTIVES = ("all_reduce", "reduce", "broadcast", "all_gather", "all_gather_into_tensor", "reduce_scatter", "send")


def counting_owner(rank, port, tokens, folder, told):
    """An owner of a block in a group of processes; tells the bytes that were sent there in training, and after it."""
    store, sent = distributed.TCPStore("127.0.0.1", port, is_master=False), []

    def counted(send):
        def count(tensor, *others, **how):
            sent.append(tensor.nbytes)
            return send(tensor, *others, **how)

        return count

    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    for name in COLLECTIVES:
        setattr(distributed, name, counted(getattr(distributed, name)))
    owner(rank, port, tokens, folder, None, DENOISING, every=10**9)
    training = sum(sent)
    distributed.all_reduce(torch.ones(4))
    told.send((training, sum(sent)))
    distributed.barrier()
    distributed.destroy_process_group()


def test_owners_of_blocks_send_no_gradient_and_their_blocks_are_one_model(shards, tmp_path):  # noqa: F811
    """Two processes of a gloo group; what both blocks read stays as it is, and the merge loads as an ordinary model."""
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes, pipes = get_context("forkserver"), []
    for rank in (0, 1):
        pipes.append(processes.Pipe(duplex=False))
        given = (rank, store.port, shards["texts"].folder, tmp_path, pipes[-1][1])
        processes.Process(target=counting_owner, args=given, daemon=True).start()
    for told, _ in pipes:
        assert told.poll(120) and told.recv() == (0, 16), "nothing but what was sent to see that it is counted"
    model = tiny.HGRN2_SPEC.build(seed=0)
    first = {name: one.detach().clone() for name, one in model.named_parameters()}
    trainable = Trainable.of_phase(model, [FROZEN], seed=3)
    ranks = [checkpoint.newest(tmp_path / "checkpoints" / f"rank-{rank}", print) for rank in (0, 1)]
    owned = [trainable.active(0, variant) for variant in (0, 1)]
    assert not owned[0].keys() & owned[1].keys()
    weights = merged(ranks, owned).tensors["weights"]
    model.load_state_dict(weights, strict=True)
    for name, one in weights.items():
        layer = name.split(".")[1] if name.startswith("layers.") else None
        assert torch.equal(one, ranks[int(layer or 0)].tensors["weights"][name])
        assert torch.equal(one, first[name]) == (layer is None), name
