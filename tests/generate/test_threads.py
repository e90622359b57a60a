"""Threads of what only reads a model: no more than cores that the process may use, or what OMP_NUM_THREADS says."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_releases

from lilliput.base.files import new_folder
from lilliput.publish.export import Generation, export

ROOT = Path(__file__).parents[2]
THREADS = 3
BEGIN = f"""
import os, sys
import torch

torch.set_num_threads({THREADS})  # as where PyTorch sees so many cores
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
"""
COMMAND = """
from lilliput.cli import app
try:
    app(standalone_mode=False)
finally:
    print("threads", torch.get_num_threads())
"""
PYTHON = """
import lilliput
lilliput.load(sys.argv[1], device="cpu")
print("threads", torch.get_num_threads())
"""
WAYS = {
    "python": (PYTHON, ["model"]),
    "generate": (COMMAND, ["generate", "model", "--prompt", "one", "--max-new-tokens", "2", "--device", "cpu"]),
    "eval": (COMMAND, ["eval", "model", "--text", "text.jsonl", "--device", "cpu"]),
    "serve": (COMMAND, ["serve", "model", "--port", "0", "--device", "cpu"]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    spec, layout = tiny_releases.RELEASES["qwen3"]
    path = tmp_path_factory.mktemp("threads")
    (path / "text.jsonl").write_text(2 * '{"text": "one two three four"}\n')
    with new_folder(path / "model") as partial:
        about = {"layout": layout, "dtype": "F32", "generation": Generation(), "chat_template": None}
        export(tiny_releases.awake(spec), tiny_releases.tokenizer(), partial, **about)
    return path


def threads(folder, way, **environment):
    """How many threads PyTorch has after a way to read the model, in a process that may use one core."""
    code, words = WAYS[way]
    settings = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | environment
    running = subprocess.Popen(
        [sys.executable, "-c", BEGIN + code, *words],
        cwd=folder,
        env=settings | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    if way == "serve":
        while "stops it" not in (line := running.stdout.readline()):
            assert line, running.communicate()
        running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    return int(out.splitlines()[-1].removeprefix("threads "))


@pytest.mark.parametrize("way", ["python", "generate", "eval", "serve"])
def test_there_are_no_more_threads_than_cores(folder, way):
    assert threads(folder, way) == 1


@pytest.mark.parametrize("way", ["python", "eval"])
def test_as_many_threads_as_asked_for(folder, way):
    assert threads(folder, way, OMP_NUM_THREADS=str(THREADS)) == THREADS
