"""A signal that finds a phase in its last moments: the phase is done, and the next one does not begin."""

import os
import signal
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import tiny
from rich.console import Console

from lilliput.base.files import read_json
from lilliput.base.units import Share
from lilliput.run import pipeline, runner
from lilliput.train.machine import Machine

WEIGHTS = Path("phases/01-more/final/weights.safetensors")


class Stopped(BaseException):
    """What the handler of this test raises, as the command line's does."""


def train(recipe, run):
    screen = StringIO()
    try:
        pipeline.train(recipe, run, Machine(device="cpu", precision="fp32", threads=1), Console(file=screen, width=200))
    except Stopped:
        screen.write("stopped")
    return screen.getvalue()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_end_of_a_phase_is_measured_ends_the_run_after_it(tmp_path, monkeypatch, number):
    first = tiny.pretraining(steps=4, measure_every=Share(1.0))
    recipe = replace(tiny.recipe(tmp_path / "data"), timeline=(first, replace(first, name="more")))
    train(recipe, tmp_path / "straight")
    make_validator, told = runner.make_validator, []

    def signalling(*arguments):
        measure = make_validator(*arguments)

        def measured(*what):
            if not told:
                told.append(os.kill(os.getpid(), number))
            return measure(*what)

        return measured

    def stop(number, frame):
        raise Stopped

    before = signal.signal(number, stop)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(runner, "make_validator", signalling)
            said = train(recipe, tmp_path / "run")
    finally:
        signal.signal(number, before)
    assert "pretrain is trained; the same command resumes after it" in said and said.endswith("stopped")
    assert read_json(tmp_path / "run/parts/phases.00-pretrain.json")["done"]
    assert not (tmp_path / "run/phases/01-more").exists()
    train(recipe, tmp_path / "run")
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == (tmp_path / "straight" / WEIGHTS).read_bytes()
