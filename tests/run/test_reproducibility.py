"""What equal bits rest on: frozen when training begins, compared before it goes on, changed only when asked for."""

import shutil
from dataclasses import replace
from io import StringIO

import pytest
import tiny
import torch
from rich.console import Console

from lilliput.base.errors import RunError
from lilliput.base.files import read_json, sha256, verify_checksum, with_checksum, write_json
from lilliput.base.run_folder import RunFolder
from lilliput.run import pipeline
from lilliput.run.reproducibility import resolve_machine
from lilliput.train.machine import Machine

MACHINE = Machine(device="cpu", precision="fp32", threads=1)


@pytest.fixture
def half_trained(tmp_path):
    """A recipe and a run of it that goes on from step 8 of 12."""
    recipe = tiny.recipe(tmp_path / "data", tiny.GQA_SPEC)
    recipe = replace(recipe, timeline=recipe.timeline[:1])
    train(recipe, tmp_path / "run", MACHINE)
    unfinished(tmp_path / "run")
    return recipe, tmp_path / "run"


def train(recipe, run, machine=None, **how):
    screen = StringIO()
    pipeline.train(recipe, run, machine, Console(file=screen, width=300), **how)
    return screen.getvalue()


def unfinished(run):
    shutil.rmtree(run / "phases" / "00-pretrain" / "final")
    shutil.rmtree(run / "phases" / "00-pretrain" / "checkpoints" / "step-000012", ignore_errors=True)


def record(run):
    return verify_checksum(read_json(run / "run.json"))


def weights(run):
    return sha256(run / "phases" / "00-pretrain" / "final" / "weights.safetensors")


def older(run):
    """As if the run had begun with a PyTorch of before."""
    before = record(run)
    assert before["made_with"]["torch"] == torch.__version__
    write_json(run / "run.json", with_checksum(before | {"made_with": before["made_with"] | {"torch": "2.0.0"}}))


def test_another_version_is_refused_by_name_and_noted_where_it_is_asked_for(half_trained):
    recipe, run = half_trained
    older(run)
    says = rf"change the weights: made_with.torch was \"2.0.0\", not \"{torch.__version__}\"".replace("+", r"\+")
    with pytest.raises(RunError, match=says) as error:
        train(recipe, run)
    assert "--allow-change" in error.value.hint and not (run / "phases" / "00-pretrain" / "final").exists()
    assert "resumes although made_with.torch was" in train(recipe, run, allow_change=True)
    (change,) = record(run)["changes"]
    assert change["phase"] == "phases/00-pretrain" and change["made_with"]["torch"] == torch.__version__
    assert record(run)["made_with"]["torch"] == "2.0.0", "what it began with stays"
    unfinished(run)
    train(recipe, run)  # nothing differs from what holds now
    assert len(record(run)["changes"]) == 1


def test_another_machine_may_go_on_where_it_is_asked_for(half_trained):
    recipe, run = half_trained
    identity = read_json(run / "parts" / "phases.00-pretrain.json")["inputs"]
    other = replace(MACHINE, rows=1)
    with pytest.raises(RunError, match='machine.rows was "auto", not 1'):
        train(recipe, run, other)
    train(recipe, run, other, allow_change=True)
    assert read_json(run / "parts" / "phases.00-pretrain.json")["inputs"] == identity, "the same phase"
    once = weights(run)
    unfinished(run)
    train(recipe, run)  # on the machine that it went on with last
    assert weights(run) == once and [change["changed"] for change in record(run)["changes"]] == [
        ['machine.rows was "auto", not 1']
    ]
    with pytest.raises(RunError, match='machine.rows was 1, not "auto"'):
        train(recipe, run, MACHINE)


def test_a_trained_run_is_not_asked_what_it_would_be_trained_with(half_trained):
    recipe, run = half_trained
    train(recipe, run)
    older(run)
    assert "12 steps" in train(recipe, run)


@pytest.mark.parametrize("machine", ["x" * 60, 3, ["cpu"], {"device": "cpu"}])
def test_a_machine_that_is_none_is_named(tmp_path, machine):
    with RunFolder(tmp_path) as run:
        record = run.read("run.json") or {}
        run.write_with_checksum("run.json", {**record, "machine": machine})
        with pytest.raises(RunError, match="the machine of the run is not a machine") as error:
            resolve_machine(run, None)
    assert str(tmp_path / "run.json") == error.value.where and "copy" in error.value.hint
