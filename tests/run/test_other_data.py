"""A decay on other data than the stable phase before it: the state is taken over, the data begin at their start."""

from dataclasses import replace
from io import StringIO

import pytest
import tiny
from rich.console import Console

from lilliput.base.units import Share, Steps
from lilliput.data.batch import Cursor
from lilliput.data.mixture import Mixture
from lilliput.optim.schedule import Constant, WarmupStableDecay
from lilliput.run import pipeline
from lilliput.run.phase_logger import METRICS
from lilliput.run.run_data import RunData
from lilliput.train import checkpoint
from lilliput.train.machine import Machine
from lilliput.train.metrics_file import read_metrics, steps_of
from lilliput.train.phase import phase_folder
from lilliput.train.resuming import CHECKPOINTS

MACHINE = Machine(device="cpu", precision="fp32", threads=1)
STABLE = tiny.pretraining(steps=8, name="stable", schedule=Constant(warmup=Steps(2)))
OTHER = Mixture(weights={"texts": 0.5, "better": 0.5}, seed=1)
DECAY = replace(
    STABLE,
    name="decay",
    data=OTHER,
    resumes="stable",
    schedule=WarmupStableDecay(warmup=Steps(0), decay=Share(1.0), shape="linear", floor=0.0),
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    base = tiny.recipe(tmp_path_factory.mktemp("data"), tiny.GQA_SPEC)
    corpora = {**base.corpora, "better": base.corpora["texts"]}
    return replace(base, corpora=corpora, timeline=(STABLE, DECAY))


def train(recipe, folder):
    screen = StringIO()
    pipeline.train(recipe, folder, MACHINE, Console(file=screen, width=200))
    return screen.getvalue()


def last(folder, index, phase):
    return checkpoint.newest(folder / phase_folder(index, phase) / CHECKPOINTS, print)


def test_it_reads_them_from_their_start(recipe, tmp_path):
    said = train(recipe, tmp_path / "run")
    assert "resumes from the end of stable" in said
    data, steps = RunData(tmp_path / "run"), {}
    for index in (0, 1):
        steps[index] = list(data.cursors(index))
        found = last(tmp_path / "run", index, recipe.timeline[index])
        assert steps[index][0] == Cursor() and steps[index][-1] == found.progress.cursor
    assert dict(steps[1][-1].positions) == {"better": 4 * 128, "texts": 4 * 128}, "as much of each"
    assert found.progress.before == 8


def test_it_begins_with_the_state_of_the_phase_before(recipe, tmp_path):
    train(recipe, tmp_path / "run")
    fresh = replace(recipe, timeline=(STABLE, replace(DECAY, resumes=None)))
    train(fresh, tmp_path / "fresh")
    metrics = [tmp_path / name / phase_folder(1, DECAY) / METRICS for name in ("run", "fresh")]
    first, other = (steps_of(read_metrics(path))[0] for path in metrics)
    assert first["cross_entropy"] == other["cross_entropy"], "the same weights and the same text"
    states = [last(tmp_path / name, 1, DECAY).tensors["optimizer"] for name in ("run", "fresh")]
    assert states[0].keys() == states[1].keys()
    assert any(not (states[0][name] == states[1][name]).all() for name in states[0])


def test_the_same_data_continue_at_their_place(recipe, tmp_path):
    same = replace(recipe, timeline=(STABLE, replace(DECAY, data=STABLE.data)))
    train(same, tmp_path / "run")
    data = RunData(tmp_path / "run")
    assert next(data.cursors(1)) == list(data.cursors(0))[-1] != Cursor()
    assert last(tmp_path / "run", 1, DECAY).progress.cursor == list(data.cursors(1))[-1]
