"""Watching a phase: the terminal and `metrics.jsonl`. Observers see numbers and change nothing."""

import json
import math
import time
from collections import deque
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lilliput.base.errors import RunError
from lilliput.base.files import write_text

WINDOW = 50
"""Steps over which the shown speed and loss are averaged."""
QUIET_SECONDS = 15.0
"""Between two lines of progress where the output is no terminal."""


class Watch:
    """Writes one line a step to `metrics.jsonl` and shows rate, remaining time, loss and bits per byte."""

    def __init__(self, path: Path, console: Console, name: str, steps: int, step: int, bytes_per_token: float | None):
        self._console, self._name, self._steps = console, name, steps
        self._bytes_per_token = bytes_per_token
        _keep_until(path, step)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115, closed on exit
        self._recent: deque[tuple[float, int, float]] = deque(maxlen=WINDOW)
        self._last = self._shown = time.perf_counter()
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=steps, completed=step, note="")

    def __enter__(self) -> "Watch":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()
        self._file.close()

    def see(self, step: int, tokens: int, read: int, numbers: dict[str, float]) -> None:
        """Record step `step` (from 1): text tokens so far and in this step, and what was computed."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        self._recent.append((seconds, read, numbers["cross_entropy"]))
        speed = sum(count for _, count, _ in self._recent) / sum(seconds for seconds, _, _ in self._recent)
        self._write({"step": step, "tokens": tokens, "seconds": seconds, "tokens_per_second": round(speed)} | numbers)
        note = self._note(speed)
        self._bar.update(self._task, completed=step, note=note)
        if not self._console.is_terminal and now - self._shown > QUIET_SECONDS:
            self._shown = now
            left = (self._steps - step) * sum(seconds for seconds, _, _ in self._recent) / len(self._recent)
            self._console.print(
                f"  {self._name} {step}/{self._steps}  {note}  {left:.0f} s left", highlight=False, soft_wrap=True
            )

    def measured(self, step: int, numbers: dict[str, float]) -> None:
        """Record a measurement on held-out data after step `step`."""
        self._write({"step": step} | numbers)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in numbers.items())
        self._console.print(f"  {self._name} step {step}: {shown}", highlight=False, soft_wrap=True)
        self._last = time.perf_counter()

    def _note(self, speed: float) -> str:
        loss = sum(loss for _, _, loss in self._recent) / len(self._recent)
        note = f"{speed:,.0f} tok/s  loss {loss:.3f}"
        if self._bytes_per_token:
            note += f"  {loss / math.log(2) / self._bytes_per_token:.3f} bits/byte"
        return note

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def _keep_until(path: Path, step: int) -> None:
    """Drop what an interrupted run wrote beyond the checkpoint it continues from."""
    if path.exists():
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
        write_text(path, "".join(f"{line}\n" for line in lines))


def _step_of(line: str) -> float:
    """The step of a line of metrics; infinity for the torn last line of a killed process."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return math.inf


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, in order.

    Raises:
        RunError: one of them is damaged.
    """
    lines = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            lines.append(json.loads(line))
        except ValueError as error:
            raise RunError(
                f"the line is damaged ({error})",
                where=f"{path}, line {number}",
                hint="put the file back from a copy, or remove the line: the card and the plot go without it",
            ) from error
    return lines


def plot_loss(metrics: Path, picture: Path, title: str, bytes_per_token: float | None) -> None:
    """Draw the training loss of a phase, and its held-out measurements, into a PNG."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    lines = read_metrics(metrics)
    steps = [line for line in lines if "cross_entropy" in line]
    scale = 1 / math.log(2) / bytes_per_token if bytes_per_token else 1.0
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    values = [line["cross_entropy"] * scale for line in steps]
    axes.plot([line["step"] for line in steps], values, color="#9ecae1", linewidth=0.8, label="training, each step")
    smooth = [sum(values[max(0, i - WINDOW + 1) : i + 1]) / min(i + 1, WINDOW) for i in range(len(values))]
    axes.plot([line["step"] for line in steps], smooth, color="#08519c", label=f"training, mean of {WINDOW} steps")
    measured = [line for line in lines if "cross_entropy" not in line]
    high = max(values[len(values) // 50 :])  # the very first steps would flatten the rest
    for name in sorted({name for line in measured for name in line} - {"step"}):
        points = [(line["step"], line[name]) for line in measured if name in line]
        high = max(high, *(value for _, value in points))
        axes.plot(*zip(*points, strict=True), "o-", markersize=4, label=f"held out: {name}")
    axes.set(title=title, xlabel="step", ylabel="bits per byte" if bytes_per_token else "nats per token")
    axes.set_ylim(min(values) * 0.9, high * 1.02)
    axes.grid(alpha=0.3)
    axes.legend()
    partial = picture.with_name(picture.name + ".partial")
    figure.savefig(partial, format="png", dpi=120)
    partial.replace(picture)
