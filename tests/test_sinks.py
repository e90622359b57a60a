"""Sinks: refused before training where they are missing, fed what the metrics have, and never in its way."""

import json
import os
import sys

import pytest
import tiny_commands

from lilliput.base.errors import LilliputError
from lilliput.train.sinks import tensorboard
from lilliput.train.sinks.sink import SINKS, Feed, Shown, check_sinks

LINE = {"step": 3, "cross_entropy": 2.5, "lr": 1.0}


@pytest.fixture
def desk(tmp_path):
    return tiny_commands.workshop(tmp_path, entries=1)


def test_a_sink_that_is_missing_is_said_before_anything_begins(desk, monkeypatch):
    tiny_commands.refused("train", "mine.py", "--sink", "tensorbord", folder=desk, says="tensorboard, trackio, wandb")
    assert not (desk / "runs").exists()
    monkeypatch.setattr("lilliput.train.sinks.sink.find_spec", lambda name: None)
    for name in SINKS:
        with pytest.raises(LilliputError, match=f"the package '{name}' is not installed") as error:
            check_sinks([name])
        assert name in error.value.hint and name in error.value.where


def test_a_sink_that_fails_is_left_out_and_training_goes_on(tmp_path, monkeypatch):
    class Full:
        def see(self, step, numbers):
            raise OSError("no space")

    said = []
    monkeypatch.setattr(tensorboard, "open_sink", lambda shown: Full())
    feed = Feed(["tensorboard"], Shown(run=tmp_path, recipe="a", phase="00-b", step=0), said.append)
    feed.see(LINE)
    feed.see(LINE)
    feed.close()
    assert said == ["tensorboard is left out from here on: OSError: no space"]


def test_nothing_of_a_sink_is_imported_unasked(desk):
    (desk / "look.py").write_text(
        f"import sys, lilliput.timeline, lilliput.cli\nassert not {{*{SINKS!r}}} & set(sys.modules), 'imported'\n"
    )
    assert os.system(f"{sys.executable} {desk / 'look.py'}") == 0


def test_tensorboard_has_the_numbers_of_the_metrics(desk):
    pytest.importorskip("tensorboard")
    tiny_commands.lilliput(
        "train", "mine.py", "--machine", "small.py", "--out", "run", "--sink", "tensorboard", folder=desk
    )
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(desk / "run" / "tensorboard" / "00-pretrain"))
    events.Reload()
    metrics = next((desk / "run").glob("phases/*/metrics.jsonl"))
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    for name in ("cross_entropy", "grad_norm/matrix", "texts", "texts/live", "tokens"):
        told = [(event.step, event.value) for event in events.Scalars(name)]
        assert told == [(line["step"], pytest.approx(line[name])) for line in lines if name in line], name
