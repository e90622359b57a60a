"""Denoising blocks in a phase: killed, rolled back, in fp16, in bags that shrink, and end to end afterwards."""

from dataclasses import replace

import pytest
import tiny
import torch
from train.test_bags import phase_of
from train.test_foreign_objective import equal_checkpoints, last
from train.test_loop import MACHINE, same, shards, train  # noqa: F401, shards is a fixture
from train.test_spike_detection import ROWS, Spoilt, numbers

from lilliput.base.units import Steps
from lilliput.nn.gqa import GQA
from lilliput.nn.hgrn2 import HGRN2
from lilliput.nn.per_layer import PerLayer
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.routes.diffusion_blocks import PORT, DiffusionBlocks
from lilliput.optim.adamw import AdamW
from lilliput.optim.normuon import NorMuon
from lilliput.train import checkpoint
from lilliput.train.metrics_file import recent_loss, steps_of
from lilliput.train.phase import Stage
from lilliput.train.rollback import read_incidents
from lilliput.train.spike_detection import Guard

BLOCKS = DiffusionBlocks(blocks=2)
STAGES = tuple(Stage(share=1 / 3, objective=NextToken(bag=bag, route=BLOCKS)) for bag in (4, 2, 1))
PHASE = phase_of(STAGES, optimizer=NorMuon(lr=6e-3, adam_lr=6e-3))
ONE = tiny.pretraining(steps=16, stages=(Stage(share=1.0, objective=NextToken(route=BLOCKS)),))
HYBRID = replace(
    tiny.HGRN2_SPEC, mixer=PerLayer(pattern=(HGRN2(heads=2), GQA(heads=4, kv_heads=2, head_width=8, qk_norm=True)))
)
SPECS = {"odin": tiny.ODIN_SPEC, "gqa": tiny.GQA_SPEC, "hybrid": HYBRID}
MIXED = replace(BLOCKS, clean_share=0.5)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("stop", [3, 6, 9])
def test_a_killed_run_ends_in_the_same_bits(shards, tmp_path, name, precision, stop):  # noqa: F811
    settings = {"spec": SPECS[name], "phase": PHASE, "machine": replace(MACHINE, precision=precision)}
    _, _, metrics = train(shards, tmp_path / "straight", **settings)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "killed", stop=stop, **settings)
    _, _, others = train(shards, tmp_path / "killed", **settings)
    equal_checkpoints(tmp_path / "straight", tmp_path / "killed")
    assert numbers(metrics) == numbers(others)
    assert len(last(tmp_path / "killed")["objectives"]) == 8, "bags of 4, 2 and 1 share the networks of the blocks"


@pytest.mark.parametrize(
    "route",
    [BLOCKS, MIXED, replace(PORT, blocks=2), replace(BLOCKS, conditioning="adaln")],
    ids=["default", "mixed", "port", "adaptive norms"],
)
def test_a_rollback_leaves_no_trace_of_what_was_spoilt(shards, tmp_path, route):  # noqa: F811
    stages = (Stage(share=1.0, objective=NextToken(route=route)),)
    phase = replace(ONE, stages=stages, data=Spoilt("nan", 10 * ROWS + 5), guard=Guard(window=6))
    _, _, metrics = train(shards, tmp_path / "straight", phase=phase)
    (incident,) = read_incidents(tmp_path / "straight" / "checkpoints")
    assert (incident["step"], incident["back_to"]) == (11, 8)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "killed", phase=phase, stop=14)
    _, _, others = train(shards, tmp_path / "killed", phase=phase)
    equal_checkpoints(tmp_path / "straight", tmp_path / "killed")
    assert numbers(metrics) == numbers(others)


def test_a_step_moves_one_block_and_what_all_share(shards, tmp_path):  # noqa: F811
    """Neither momentum, decay nor the average moves the other block, whose turn it is not."""
    phase = replace(ONE, save_every=Steps(1), optimizer=AdamW(lr=6e-3, weight_decay=1.0))
    train(shards, tmp_path, phase=phase)
    saved = [checkpoint.load(checkpoint.at_step(tmp_path / "checkpoints", step)).tensors for step in (15, 16)]
    for kind in ("weights", "average"):
        moved = {name for name, one in saved[0][kind].items() if not torch.equal(one, saved[1][kind][name])}
        blocks = {name.split(".")[1] for name in moved if name.startswith("layers.")}
        assert len(blocks) == 1 and {"embedding.weight", "norm.weight"} <= moved, kind
    networks = {
        name.split(".")[-3]
        for name, one in saved[0]["objectives"].items()
        if not torch.equal(one, saved[1]["objectives"][name])
    }
    assert networks == blocks, "the network of the block"


def test_micro_batches_add_up_to_the_step(shards, tmp_path):  # noqa: F811
    _, _, metrics = train(shards, tmp_path / "whole", phase=ONE)
    _, _, others = train(shards, tmp_path / "parts", phase=ONE, machine=replace(MACHINE, rows=1))
    for one, other in zip(steps_of(metrics)[:6], steps_of(others)[:6], strict=True):
        assert one["cross_entropy"] == pytest.approx(other["cross_entropy"], rel=1e-4)


@pytest.mark.parametrize("route", [BLOCKS, MIXED], ids=["blocks alone", "mixed"])
def test_ordinary_training_follows_with_the_weights_and_nothing_else(shards, tmp_path, route):  # noqa: F811
    """Held-out numbers are not defined before, unless all layers learn to predict, too; and are afterwards."""
    phase = replace(ONE, stages=(Stage(share=1.0, objective=NextToken(route=route)),))
    blocks, average, metrics = train(shards, tmp_path / "blocks", phase=phase)
    plain = tiny.HGRN2_SPEC.build(seed=0)
    assert average.keys() == dict(plain.named_parameters()).keys()
    plain.load_state_dict(blocks.state_dict(), strict=True)
    held_out = {value for line in metrics for name, value in line.get("heldout", {}).items()}
    assert (held_out == {None}) == (route == BLOCKS)
    assert recent_loss(steps_of(metrics)[-4:]) < recent_loss(steps_of(metrics)[:4])
    if route == MIXED:
        assert all("clean/cross_entropy" in line for line in steps_of(metrics))

    class Trained:
        """What the phase of blocks left."""

        def build(self, seed):
            return plain

    after = tiny.pretraining(name="end-to-end", steps=16)
    _, _, metrics = train(shards, tmp_path / "after", spec=Trained(), phase=after)
    assert not last(tmp_path / "after")["objectives"], "the networks of the blocks are gone"
    assert all(value > 0 for line in metrics for value in line.get("heldout", {}).values())
    assert recent_loss(steps_of(metrics)[-4:]) < recent_loss(steps_of(metrics)[:4])
