"""Native code that a signal does not wait for, and processes that do not outlive the one they work for."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lilliput.base.background import BackgroundCall, has_unfinished_calls, run_in_background
from lilliput.base.errors import MachineError
from lilliput.data.workers import spread

ENCODING = """
import signal, sys, time
from lilliput.cli.run import interruptible
from lilliput.base.background import run_in_background
from lilliput.tokenizer.bpe import BPE

tokenizer = BPE(vocab=262).train(f"some text number {number}" for number in range(900))
try:
    with interruptible():
        print("begun", flush=True)
        try:
            run_in_background(tokenizer.encode_batch_fast, ["1" * 4_000_000])
            print("encoded")
        finally:
            time.sleep(float(sys.argv[1]))
            print("put in order")
except BaseException as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_does_not_wait_for_a_text_that_takes_long(number: signal.Signals, code: int) -> None:
    with command(ENCODING, "0.3") as running:
        assert running.stdout is not None and running.stdout.readline() == "begun\n"
        time.sleep(0.3)  # into the native code, which takes some ten seconds
        began = time.monotonic()
        for _ in range(3):  # the same answer, however often it is told
            running.send_signal(number)
            time.sleep(0.05)
        out, err = running.communicate(timeout=30)
    assert time.monotonic() - began < 8
    said = "put in order\n\ninterrupted; the same command resumes it\n"
    assert (running.returncode, out, err) == (code, said, "")


def test_a_call_beside_returns_and_raises_what_it_would_here() -> None:
    assert run_in_background(divmod, 7, 2) == (3, 1) and run_in_background(sorted, [2, 1], reverse=True) == [2, 1]
    with pytest.raises(ZeroDivisionError):
        run_in_background(divmod, 7, 0)
    assert not has_unfinished_calls()
    held = threading.Event()
    waiting = BackgroundCall(held.wait)
    assert has_unfinished_calls()
    held.set()
    assert waiting.result() is True and not has_unfinished_calls()


HOLDING = """
import fcntl, hashlib, sys
from lilliput.data.workers import spread

def hold(path):
    file = open(path, "w")
    fcntl.flock(file, fcntl.LOCK_EX)
    file.write("held")
    file.flush()
    if path.endswith("native"):
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
    while True:
        pass

if __name__ == "__main__":
    spread(hold, sys.argv[1:], 2)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_process_they_work_for(number: signal.Signals, tmp_path: Path) -> None:
    """A lock is free once the process that held it is gone."""
    script, held = tmp_path / "script.py", [tmp_path / "native", tmp_path / "python"]
    script.write_text(HOLDING)
    with command(script, *held, start_new_session=True) as running:
        until = time.monotonic() + 30
        while not all(path.exists() and path.read_text() for path in held):
            assert time.monotonic() < until and running.poll() is None
            time.sleep(0.01)
        assert not any(map(is_free, held))
        os.killpg(running.pid, number) if number == signal.SIGINT else running.send_signal(number)  # as a terminal does
        running.wait(timeout=30)
        until = time.monotonic() + 15
        while not all(map(is_free, held)):
            assert time.monotonic() < until
            time.sleep(0.01)
        assert running.stderr is not None and running.stderr.read().count("Traceback") == (number == signal.SIGINT)


def is_free(path: Path) -> bool:
    with open(path, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def command(script: str | Path, *arguments: object, **how: bool) -> subprocess.Popen[str]:
    words = ["-c", script] if isinstance(script, str) else [str(script)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.Popen(
        [sys.executable, *words, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **how,
    )


def test_work_is_spread_and_comes_back_in_order() -> None:
    assert spread(str.upper, ["a", "b", "c", "d", "e"], 2) == ["A", "B", "C", "D", "E"]
    assert spread(str.upper, [], 2) == []


def test_what_a_worker_raises_and_that_it_ended_is_told() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        spread(reciprocal, [1, 0], 2)
    with pytest.raises(MachineError, match="has died"):
        spread(os._exit, [3], 2)


def reciprocal(number: int) -> float:
    return 1 / number
