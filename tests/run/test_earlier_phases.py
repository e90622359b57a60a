"""What growths see of earlier phases: weights, averages, optimizer state, kept checkpoints, and computed values."""

import shutil
from dataclasses import dataclass, replace
from io import StringIO
from typing import ClassVar

import pytest
import tiny
import torch
from rich.console import Console
from safetensors.torch import load_file

from lilliput.base.errors import RunError
from lilliput.base.units import Share, Steps
from lilliput.computations.measure_heldout import MeasureHeldOut
from lilliput.growth.growth import Growth
from lilliput.model import copy_weights
from lilliput.run import pipeline
from lilliput.run.listing import remove, spare, states
from lilliput.run.trained import read_trained
from lilliput.train.checkpoint import load
from lilliput.train.machine import Machine

MACHINE = Machine(device="cpu", precision="fp32", threads=1)


@dataclass(frozen=True, kw_only=True)
class MeanOfKept(Growth):
    """The mean of the kept checkpoints of a phase: the average of a cycle."""

    phase: str

    def grow(self, lineage, seed):
        earlier = lineage.earlier[self.phase]
        found = [earlier.kept(step)["weights"] for step in earlier.kept_steps]
        copy_weights(lineage.model, {name: sum(one[name] for one in found) / len(found) for name in found[0]})
        return replace(lineage, average={})


@dataclass(frozen=True, kw_only=True)
class Look(Growth):
    """Remembers what it is given."""

    seen: ClassVar[dict] = {}

    def grow(self, lineage, seed):
        Look.seen |= {"lineage": lineage, "optimizer": lineage.earlier["pretrain"].optimizer()}
        return lineage


def recipe(folder, *entries, **changes):
    first = tiny.pretraining(steps=6, keep=(Steps(2), Share(1.0)), **changes)
    return replace(tiny.recipe(folder), timeline=(first, *entries))


def train(whole, run):
    pipeline.train(whole, run, MACHINE, Console(file=StringIO()))


def weights(run, part="phases/02-more"):
    return load_file(run / part / "final" / "weights.safetensors")


def second():
    return replace(tiny.pretraining(steps=4), name="more")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with everything that a growth can look at."""
    folder = tmp_path_factory.mktemp("earlier")
    measure = MeasureHeldOut(name="before", corpora=("texts",), length=32)
    whole = recipe(folder / "data", measure, Look(), second())
    train(whole, folder / "run")
    return whole, folder / "run", dict(Look.seen)


def test_a_growth_sees_what_earlier_phases_left(run):
    _, folder, seen = run
    first, phase = folder / "phases/00-pretrain", seen["lineage"].earlier["pretrain"]
    assert list(seen["lineage"].earlier) == ["pretrain"] and phase.kept_steps == (2, 6)
    last = load(first / "checkpoints/step-000006").tensors
    for found, expected in (
        (phase.weights(), last["weights"]),
        (phase.average(), last["average"]),
        (seen["optimizer"], last["optimizer"]),
        (phase.kept(2)["weights"], load(first / "kept/step-000002").tensors["weights"]),
    ):
        assert found and found.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in found.items())
    assert seen["lineage"].computed["before"].value["live"]["texts"] > 0
    with pytest.raises(RunError, match=r"kept no checkpoint of step 3[\s\S]*2, 6"):
        phase.kept(3)


def test_what_is_damaged_or_cleaned_away_is_an_error_of_three_parts(run, tmp_path):
    whole, folder, _ = run
    shutil.copytree(folder, tmp_path / "run")
    assert {one.name for one in states(tmp_path / "run")} >= {"phases/00-pretrain/kept"}
    assert not any("kept" in one.name for one in spare(tmp_path / "run"))
    remove(tmp_path / "run", spare(tmp_path / "run"))
    with pytest.raises(
        RunError, match=r"optimizer's state at the end of 'pretrain' is not there: it was cleaned"
    ) as caught:
        train(whole, tmp_path / "run")
    assert "step-000006" in caught.value.where and "--from phases/00-pretrain" in caught.value.hint
    remove(tmp_path / "run", states(tmp_path / "run"))
    kept = recipe(folder.parent / "data", MeanOfKept(phase="pretrain"))
    with pytest.raises(RunError, match=r"the kept checkpoint of step 2 of 'pretrain' is not there"):
        train(kept, tmp_path / "run")
    shutil.copytree(folder, tmp_path / "damaged")
    file = tmp_path / "damaged/phases/00-pretrain/kept/step-000002/weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(RunError, match=r"the kept checkpoint of step 2 of 'pretrain': a damaged checkpoint"):
        train(kept, tmp_path / "damaged")


def test_averages_of_kept_checkpoints_train_on_and_are_resumed(tmp_path, monkeypatch):
    whole = recipe(tmp_path / "data", MeanOfKept(phase="pretrain"), second())
    train(whole, tmp_path / "straight")
    part = replace(whole, timeline=whole.timeline[:2])
    train(part, tmp_path / "resumed")
    mean = {
        name: parameter.clone()
        for name, parameter in read_trained(tmp_path / "resumed").published.model.named_parameters()
    }
    kept = [load(tmp_path / f"resumed/phases/00-pretrain/kept/step-{step:06d}").tensors["weights"] for step in (2, 6)]
    assert all(torch.equal(value, (kept[0][name] + kept[1][name]) / 2) for name, value in mean.items())
    train(whole, tmp_path / "resumed")
    ours, theirs = weights(tmp_path / "resumed"), weights(tmp_path / "straight")
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    without = recipe(tmp_path / "data", second())
    train(without, tmp_path / "without")
    assert (tmp_path / "without/phases/00-pretrain/final/weights.safetensors").read_bytes() == (
        tmp_path / "straight/phases/00-pretrain/final/weights.safetensors"
    ).read_bytes()
