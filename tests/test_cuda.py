"""What only a CUDA device can show: the whole line there, resuming to the bit, and the same numbers as on a CPU."""

from dataclasses import replace
from io import StringIO

import pytest
import tiny
import torch
from rich.console import Console
from test_train import same, shards, train  # noqa: F401, shards is a fixture

import lilliput
from lilliput.base.files import sha256
from lilliput.optim.normuon import NorMuon
from lilliput.timeline import run
from lilliput.train.machine import Machine

pytestmark = pytest.mark.gpu

CUDA = Machine(device="cuda", precision="bf16", threads=1)


@pytest.mark.parametrize("name", tiny.SPECS)
def test_a_run_ends_in_releases_that_write_what_they_write_on_a_cpu(name, tmp_path):
    recipe = tiny.recipe(tmp_path / "data", tiny.SPECS[name])
    releases = run(recipe, tmp_path / "run", CUDA, Console(file=StringIO()))
    again = run(recipe, tmp_path / "again", CUDA, Console(file=StringIO()))
    for one, other in zip(releases, again, strict=True):
        assert sha256(one / "model.safetensors") == sha256(other / "model.safetensors")
    here, there = (lilliput.load(releases[-1], device=device) for device in ("cuda", "cpu"))
    context, choices = "small models learn", ["little", "by", "text"]
    for one, other in zip(here.score(context, choices), there.score(context, choices), strict=True):
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-3)
    assert here.generate("small models", greedy=True) == there.generate("small models", greedy=True)


@pytest.mark.parametrize("name", tiny.SPECS)
@pytest.mark.parametrize("optimizer", [None, NorMuon(lr=1e-2, adam_lr=1e-2)], ids=["adamw", "normuon"])
@pytest.mark.parametrize("stop", [1, 7, 9])
def test_resume_is_exact_to_the_bit(shards, tmp_path, name, optimizer, stop):  # noqa: F811
    phase = tiny.pretraining() if optimizer is None else replace(tiny.pretraining(), optimizer=optimizer)
    settings = {"spec": tiny.SPECS[name], "phase": phase, "machine": CUDA}
    straight, average, _ = train(shards, tmp_path / "straight", **settings)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "resumed", stop=stop, **settings)
    resumed, other_average, _ = train(shards, tmp_path / "resumed", **settings)
    assert same(straight, resumed)
    assert all(torch.equal(average[key], other_average[key]) for key in average)


@pytest.mark.parametrize("name", tiny.SPECS)
def test_fp32_training_reaches_the_loss_of_a_cpu(shards, tmp_path, name):  # noqa: F811
    phase = tiny.pretraining(steps=20)
    machines = {"cuda": replace(CUDA, precision="fp32"), "cpu": Machine(device="cpu", precision="fp32", threads=1)}
    ends = {
        device: train(shards, tmp_path / device, spec=tiny.SPECS[name], phase=phase, machine=machine)[2][-1]["texts"]
        for device, machine in machines.items()
    }
    assert ends["cuda"] == pytest.approx(ends["cpu"], abs=5e-3)
