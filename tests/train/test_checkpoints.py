"""Leaving and saving: signals, checkpoints of several files, disks that fail while the training goes on."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import tiny
import torch
from train.test_loop import MACHINE, same, shards, train  # noqa: F401, shards is a fixture

from lilliput.base import files
from lilliput.base.errors import RunError
from lilliput.base.units import Steps
from lilliput.train import checkpoint
from lilliput.train.checkpoint import AsyncCheckpointWriter, Checkpoint, Progress
from lilliput.train.signals import SIGNALS, GracefulShutdown


class Signalled:
    """A model whose process gets a signal in the middle of a step, counted from 0."""

    def __init__(self, spec, step, number):
        self.spec, self.step, self.number = spec, step, number

    def build(self, seed):
        model, passes = self.spec.build(seed), iter(range(10_000))
        ask = lambda grad: os.kill(os.getpid(), self.number) if next(passes) == self.step else None  # noqa: E731
        model.norm.weight.register_hook(ask)
        return model


class Stopped(BaseException):
    """What the handler of these tests raises."""


@pytest.fixture(params=SIGNALS)
def number(request):
    """A signal with a handler that raises, as the command line has."""

    def handler(number, frame):
        raise Stopped

    before = signal.signal(request.param, handler)
    yield request.param
    assert signal.signal(request.param, before) is handler, "the handler is put back"


def test_a_signal_saves_the_step_in_progress(shards, tmp_path, number):  # noqa: F811
    straight, average, metrics = train(shards, tmp_path / "straight")
    with pytest.raises(Stopped):
        train(shards, tmp_path / "told", spec=Signalled(tiny.HGRN2_SPEC, 5, number))
    assert checkpoint.newest(tmp_path / "told" / "checkpoints", print).progress.step == 6
    resumed, other, other_metrics = train(shards, tmp_path / "told")
    assert same(straight, resumed) and all(torch.equal(average[key], other[key]) for key in average)
    assert [line["step"] for line in metrics] == [line["step"] for line in other_metrics]


def test_a_signal_in_the_last_step_finds_the_phase_done(shards, tmp_path, number):  # noqa: F811
    model, _, _ = train(shards, tmp_path / "told", spec=Signalled(tiny.HGRN2_SPEC, 11, number))
    assert same(model, train(shards, tmp_path / "straight")[0])


TWICE = """
import os, sys, time
from lilliput.train.signals import GracefulShutdown
with GracefulShutdown() as shutdown:
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(0.01)
    print(shutdown.requested, flush=True)
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(20)
"""


@pytest.mark.parametrize(("which", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_the_process_at_once(which, code):
    ended = subprocess.run([sys.executable, "-c", TWICE, str(int(which))], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "True\n", "")


def test_an_echo_is_no_second_signal():
    with GracefulShutdown(echo=60.0) as shutdown:
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        assert shutdown.requested


def test_elsewhere_than_in_the_main_thread_signals_are_left_alone():
    meant, found = signal.getsignal(signal.SIGTERM), []

    def look():
        with GracefulShutdown() as shutdown:
            found.extend([signal.getsignal(signal.SIGTERM), shutdown.requested])

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [meant, False]


def test_a_checkpoint_of_several_files_is_the_same_checkpoint(shards, tmp_path, monkeypatch):  # noqa: F811
    whole, _, _ = train(shards, tmp_path / "whole")
    monkeypatch.setattr(checkpoint, "SHARD", 20_000)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "many", stop=9)
    names = [path.name for path in (tmp_path / "many" / "checkpoints" / "step-000008").glob("optimizer*")]
    assert len(names) > 3 and "optimizer-1.safetensors" in names
    assert same(whole, train(shards, tmp_path / "many")[0])


def a_checkpoint(step, value=1.0):
    return Checkpoint(progress=Progress(step=step), tensors={"weights": {"w": torch.full((64,), value)}})


def test_training_does_not_wait_for_the_disk_and_what_it_does_next_is_not_saved(tmp_path, monkeypatch):
    slow, released = threading.Event(), threading.Event()

    def boundary(what, path):
        slow.set()
        assert released.wait(30)

    monkeypatch.setattr(files, "boundary", boundary)
    saved = a_checkpoint(4)
    with AsyncCheckpointWriter(tmp_path) as saver:
        saver.save(saved)
        assert slow.wait(30)
        saved.tensors["weights"]["w"].fill_(2.0)  # the next step
        saver.check()
        assert checkpoint.newest(tmp_path, print) is None, "not there before it is whole"
        released.set()
    found = checkpoint.newest(tmp_path, print)
    assert found.progress.step == 4 and found.tensors["weights"]["w"].eq(1.0).all()


def test_a_disk_that_fails_is_told_by_the_next_step(shards, tmp_path, monkeypatch):  # noqa: F811
    """The checkpoint of step 4 fails; the one before it is whole, and the run goes on from there."""

    def boundary(what, path):
        if what == "rename" and "step-000008" in str(path):
            raise OSError(28, "No space left on device")

    phase = tiny.pretraining(steps=40)
    straight, _, _ = train(shards, tmp_path / "straight", phase=phase)
    with monkeypatch.context() as patch, pytest.raises(OSError) as error:
        patch.setattr(files, "boundary", boundary)
        train(shards, tmp_path / "failed", phase=phase)
    assert "step-000008" in error.value.filename
    assert checkpoint.newest(tmp_path / "failed" / "checkpoints", print).progress.step == 4
    assert same(straight, train(shards, tmp_path / "failed", phase=phase)[0])


def test_a_disk_that_fails_at_the_end_is_told_too(tmp_path, monkeypatch):
    def boundary(what, path):
        raise RunError("full", where=str(path), hint="wait")

    monkeypatch.setattr(files, "boundary", boundary)
    with pytest.raises(RunError, match="full"), AsyncCheckpointWriter(tmp_path) as saver:
        saver.save(a_checkpoint(4))


def test_saving_often_keeps_two(shards, tmp_path):  # noqa: F811
    train(shards, tmp_path, phase=tiny.pretraining(save_every=Steps(1)), machine=replace(MACHINE, rows=2))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000011", "step-000012"]


def test_the_newest_are_kept_past_a_million_steps(tmp_path):
    for step in (999_998, 999_999, 1_000_000, 1_000_001):
        checkpoint.save(tmp_path, a_checkpoint(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1000000", "step-1000001"]
    found = checkpoint.newest(tmp_path, print)
    assert found is not None and found.progress.step == 1_000_001
