"""From the command to the gradients: few frames, all of them in files that the README's reading path names."""

import re
import subprocess
import sys
from pathlib import Path

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


def test_a_step_is_few_frames_away_from_the_command(tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("\n".join(f"Small models learn number {n} by heart." for n in range(2000)))
    small = ["--set", "tokenizer.vocab=512", "--set", "model.vocab=512", "--set", "model.layers=1"]
    command = [sys.executable, "-c", PROGRAM, "train", "own-text", "--source", f"texts={texts}", *small]
    made = subprocess.run(
        [*command, "--machine", "cpu", "--out", str(tmp_path / "run")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    frames = [line.split()[1:] for line in made.stdout.splitlines() if line.startswith("FRAME")]
    assert frames and frames[0] == ["cli/app.py", "main"], made.stderr[-2000:]
    assert frames[-1][0] == "train/forward_backward.py" and len(frames) <= MOST, frames
    path = (ROOT / "README.md").read_text(encoding="utf-8")
    for file in {name for name, _ in frames if name.startswith(("train/", "run/runner", "run/pipeline"))}:
        assert f"lilliput/{file}" in path, f"the reading path leaves out {file}"


def test_the_reading_path_is_an_hour_long():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    path = text[text.index("training step: [run/pipeline.py]") :].partition("\n\n")[0]
    files = [ROOT / name for name in re.findall(r"\((lilliput/[\w/]+\.py)\)", path)]
    lines = {file.name: file.read_text(encoding="utf-8").count("\n") for file in files}
    assert len(files) == 8 and sum(lines.values()) <= LINES, lines
