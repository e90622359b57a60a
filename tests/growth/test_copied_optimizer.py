"""An optimizer's state that is stacked with the layers: what the next phase begins with, resumed and refused."""

import json
import shutil
from dataclasses import replace
from io import StringIO

import pytest
import tiny
import torch
from rich.console import Console

from lilliput.base.errors import RecipeError
from lilliput.base.units import Steps, Tokens
from lilliput.growth.stack import Stack
from lilliput.growth.use_ema import UseEma
from lilliput.optim.adamw import AdamW
from lilliput.optim.normuon import NorMuon
from lilliput.optim.schedule import Constant
from lilliput.run import pipeline
from lilliput.train.checkpoint import load
from lilliput.train.machine import Machine

MACHINE = Machine(device="cpu", precision="fp32", threads=1)
COPIED = Stack(times=2, optimizer="copied")


def recipe(folder, optimizer, *between, spec=tiny.GQA_SPEC):
    first = replace(tiny.pretraining(steps=6), optimizer=optimizer)
    second = replace(tiny.pretraining(steps=4), name="grown", optimizer=optimizer, schedule=Constant())
    return replace(tiny.recipe(folder, spec), timeline=(first, *between, second))


def checkpoint(run, part, step):
    return load(run / "phases" / part / "checkpoints" / f"step-{step:06}").tensors


@pytest.mark.parametrize("optimizer", [AdamW(lr=3e-3), NorMuon(lr=3e-3, adam_lr=3e-3)], ids=["adamw", "normuon"])
def test_the_next_phase_begins_with_the_copied_state(tmp_path, optimizer):
    whole, run = recipe(tmp_path / "data", optimizer, COPIED), tmp_path / "run"
    pipeline.train(whole, run, MACHINE, Console(file=StringIO()))
    before, begun = checkpoint(run, "00-pretrain", 6), checkpoint(run, "02-grown", 0)
    old, new = before["optimizer"], begun["optimizer"]
    for name, value in new.items():
        layers, _, rest = name.partition(".")
        place, _, rest = rest.partition(".")
        original = f"layers.{int(place) % 2}.{rest}" if layers == "layers" else name
        assert torch.equal(value, old[original]), name
    assert sum(name.startswith("layers.") for name in new) == 2 * sum(name.startswith("layers.") for name in old) > 0
    record = json.loads((run / "parts" / "phases.02-grown.json").read_text())["outputs"]["grown"]
    assert [(one["growth"]["times"], one["after"]) for one in record] == [
        (2, {"phase": "pretrain", "steps": 6, "tokens": int(whole.timeline[0].tokens)})
    ]


def test_a_phase_that_began_with_it_resumes_to_the_same_weights(tmp_path):
    whole, run = recipe(tmp_path / "data", AdamW(lr=3e-3), COPIED), tmp_path / "run"
    whole = replace(whole, timeline=(*whole.timeline[:-1], replace(whole.timeline[-1], save_every=Steps(2))))
    pipeline.train(whole, run, MACHINE, Console(file=StringIO()))
    weights = run / "phases" / "02-grown" / "final" / "weights.safetensors"
    straight = weights.read_bytes()
    weights.unlink()
    shutil.rmtree(run / "phases" / "02-grown" / "checkpoints" / "step-000004")
    pipeline.train(whole, run, MACHINE, Console(file=StringIO()))
    assert weights.read_bytes() == straight


def test_a_fresh_optimizer_is_another_run(tmp_path):
    copied = recipe(tmp_path / "data", AdamW(lr=3e-3), COPIED)
    fresh = recipe(tmp_path / "data", AdamW(lr=3e-3), Stack(times=2))
    for name, whole in (("copied", copied), ("fresh", fresh)):
        pipeline.train(whole, tmp_path / name, MACHINE, Console(file=StringIO()))
    assert not checkpoint(tmp_path / "fresh", "02-grown", 0)["optimizer"]
    one, other = (checkpoint(tmp_path / name, "02-grown", 4)["weights"] for name in ("copied", "fresh"))
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


def test_a_state_that_no_phase_can_take_over_is_refused(tmp_path):
    adam = AdamW(lr=3e-3)
    for between in ((COPIED, UseEma()), (UseEma(), COPIED)):
        with pytest.raises(RecipeError, match=r"cannot be handed on by Stack[\s\S]*right between two phases"):
            recipe(tmp_path / "data", adam, *between)
    whole = recipe(tmp_path / "data", adam, COPIED)
    other = replace(whole.timeline[-1], optimizer=AdamW(lr=1e-3), tokens=Tokens(4 * 4 * 32))
    with pytest.raises(RecipeError, match="cannot be handed on"):
        replace(whole, timeline=(*whole.timeline[:-1], other))
    with pytest.raises(RecipeError, match="cannot be handed on"):
        replace(whole, timeline=whole.timeline[1:])
