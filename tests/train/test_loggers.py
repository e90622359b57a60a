"""Sinks: refused before training where they are missing, fed what the metrics have, and never in its way."""

import json
import os
import sqlite3
import subprocess
import sys

import pytest
import tiny_commands

from lilliput.base.errors import LilliputError
from lilliput.train.loggers import tensorboard
from lilliput.train.loggers.logger import LOGGERS, LoggerGroup, RunInfo, check_loggers

LINE = {"step": 3, "cross_entropy": 2.5, "lr": 1.0}


@pytest.fixture
def desk(tmp_path):
    return tiny_commands.workshop(tmp_path, entries=1)


def test_a_logger_that_is_missing_is_said_before_anything_begins(desk, monkeypatch):
    tiny_commands.refused("train", "mine.py", "--logger", "tensorbord", folder=desk, says="tensorboard, trackio, wandb")
    assert not (desk / "runs").exists()
    monkeypatch.setattr("lilliput.train.loggers.logger.find_spec", lambda name: None)
    for name in LOGGERS:
        with pytest.raises(LilliputError, match=f"the package '{name}' is not installed") as error:
            check_loggers([name])
        assert name in error.value.hint and name in error.value.where


def test_a_logger_that_fails_is_left_out_and_training_goes_on(tmp_path, monkeypatch):
    class Full:
        def log(self, step, numbers):
            raise OSError("no space")

    said = []
    monkeypatch.setattr(tensorboard, "open_logger", lambda shown: Full())
    feed = LoggerGroup(["tensorboard"], RunInfo(run=tmp_path, recipe="a", phase="00-b", step=0), said.append)
    feed.log(LINE)
    feed.log(LINE)
    feed.close()
    assert said == ["tensorboard is left out from here on: OSError: no space"]


def test_a_logger_is_given_numbers_alone(tmp_path, monkeypatch):
    told = []

    class Seen:
        def log(self, step, numbers):
            told.append((step, dict(numbers)))

        def close(self): ...

    monkeypatch.setattr(tensorboard, "open_logger", lambda shown: Seen())
    feed = LoggerGroup(["tensorboard"], RunInfo(run=tmp_path, recipe="a", phase="00-b", step=0))
    sample = {"corpus": "texts", "prompt": "Small", "text": " models"}
    feed.log({"step": 3, "tokens": 96, "heldout": {"texts": 2.5, "other": None}, "samples": [sample]})
    assert told == [(3, {"tokens": 96, "heldout/texts": 2.5})]


def test_nothing_of_a_logger_is_imported_unasked(desk):
    (desk / "look.py").write_text(
        f"import sys, lilliput.run.pipeline, lilliput.cli\nassert not {{*{LOGGERS!r}}} & set(sys.modules), 'imported'\n"
    )
    assert os.system(f"{sys.executable} {desk / 'look.py'}") == 0


def test_tensorboard_has_the_numbers_of_the_metrics(desk):
    pytest.importorskip("tensorboard")
    tiny_commands.lilliput(
        "train", "mine.py", "--machine", "small.py", "--out", "run", "--logger", "tensorboard", folder=desk
    )
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(desk / "run" / "tensorboard" / "00-pretrain"))
    events.Reload()
    metrics = next((desk / "run").glob("phases/*/metrics.jsonl"))
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    for name in ("cross_entropy", "grad_norm/matrix", "heldout/texts", "heldout/texts/live", "tokens"):
        told = [(event.step, event.value) for event in events.Scalars(name)]
        assert told == [(line["step"], pytest.approx(line[name])) for line in lines if name in line], name


FEED_TWICE = """
import sys
from pathlib import Path

from lilliput.train.loggers.logger import LoggerGroup, RunInfo

for start in (0, 3):
    said = []
    info = RunInfo(run=Path("run"), recipe="tiny", phase="00-pretrain", step=start)
    feed = LoggerGroup([sys.argv[1]], info, said.append)
    for step in range(start + 1, start + 4):
        feed.log({"step": step, "cross_entropy": 6.0 / step})
    feed.close()
    assert not said, said
"""


def fed_twice(name, folder):
    """A phase that is left after three steps and goes on for three, shown to the package itself; nothing is sent."""
    pytest.importorskip(name)
    (folder / "run").mkdir()
    offline = {"WANDB_MODE": "offline", "TRACKIO_DIR": str(folder / "trackio"), "HOME": str(folder)}
    subprocess.run([sys.executable, "-c", FEED_TWICE, name], cwd=folder, env=os.environ | offline, check=True)


def test_trackio_has_one_run_of_a_phase_that_went_on(tmp_path):
    fed_twice("trackio", tmp_path)
    told = sqlite3.connect(tmp_path / "trackio" / "tiny.db").execute("SELECT run_name, step, metrics FROM metrics")
    rows = [(name, step, json.loads(numbers)["cross_entropy"]) for name, step, numbers in told]
    assert rows == [("run-00-pretrain", step, 6.0 / step) for step in range(1, 7)]


def test_wandb_goes_on_with_the_same_run(tmp_path):
    fed_twice("wandb", tmp_path)
    kept = [path.name for path in (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")]
    assert len(kept) == 2 and len(set(kept)) == 1, "two files of one id"
