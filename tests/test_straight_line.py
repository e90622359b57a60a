"""From the command to the gradients: few frames, all of them in files that the README's reading path names."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINES = 1_300
"""Lines of the files that a step runs through, from the pipeline to the scan."""
MOST = 10
"""Frames of ours from `lilliput` to `loss.backward()`."""

PROGRAM = """
import sys, traceback
from lilliput.cli.app import main
from lilliput.train.precision import WidePrecision

def scale(self, loss):
    for frame in traceback.extract_stack()[:-1]:
        if "/lilliput/" in frame.filename:
            print("FRAME", frame.filename.rpartition("/lilliput/")[2], frame.name)
    sys.stdout.flush()
    raise SystemExit

WidePrecision.scale = scale
sys.argv = ["lilliput", *sys.argv[1:]]
main()
"""


TRACED = """
import sys
from lilliput.cli.app import main
from lilliput.train.loop import Trainer

step, files, steps = Trainer.train_step, set(), []

def traced(self):
    steps.append(1)
    if len(steps) == 1:  # imports
        return step(self)
    sys.setprofile(lambda frame, event, value: files.add(frame.f_code.co_filename))
    try:
        return step(self)
    finally:
        sys.setprofile(None)
        print("FILES", *(name.rpartition("/lilliput/")[2] for name in files if "/lilliput/" in name), flush=True)
        raise SystemExit

Trainer.train_step = traced
sys.argv = ["lilliput", *sys.argv[1:]]
main()
"""


@pytest.fixture
def small_run(tmp_path):
    """Runs a program as `lilliput train` of a model of one layer."""
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("\n".join(f"Small models learn number {n} by heart." for n in range(2000)))
    small = ["--set", "tokenizer.vocab=512", "--set", "model.vocab=512", "--set", "model.layers=1"]
    command = ["train", "own-text", "--source", f"texts={texts}", *small, "--machine", "cpu"]

    def run(program):
        line = [sys.executable, "-c", program, *command, "--out", str(tmp_path / "run")]
        return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)

    return run


def test_a_step_is_few_frames_away_from_the_command(small_run):
    made = small_run(PROGRAM)
    frames = [line.split()[1:] for line in made.stdout.splitlines() if line.startswith("FRAME")]
    assert frames and frames[0] == ["cli/app.py", "main"], made.stderr[-2000:]
    assert frames[-1][0] == "train/forward_backward.py" and len(frames) <= MOST, frames
    path = (ROOT / "README.md").read_text(encoding="utf-8")
    for file in {name for name, _ in frames if name.startswith(("train/", "run/runner", "run/pipeline"))}:
        assert f"lilliput/{file}" in path, f"the reading path leaves out {file}"


def test_the_readme_names_all_that_training_does_in_a_step(small_run):
    """Files of train/ that a step runs through, each by its name; what else it runs is models, objectives, data."""
    made = small_run(TRACED)
    (line,) = (line for line in made.stdout.splitlines() if line.startswith("FILES"))
    files = {name for name in line.split()[1:] if name.startswith("train/")}
    assert {"train/loop.py", "train/batches.py", "train/precision.py"} <= files, made.stderr[-2000:]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    paragraph = text[text.index("An hour of reading") :].partition("\n\n")[0]
    words = set(re.findall(r"\w+", paragraph))
    assert {name for name in files if Path(name).stem not in words} == set(), "named nowhere"


def test_the_reading_path_is_an_hour_long():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    path = text[text.index("training step: [run/pipeline.py]") :].partition("\n\n")[0]
    files = [ROOT / name for name in re.findall(r"\((lilliput/[\w/]+\.py)\)", path)]
    lines = {file.name: file.read_text(encoding="utf-8").count("\n") for file in files}
    assert len(files) == 8 and sum(lines.values()) <= LINES, lines
