"""Watching a phase: the terminal and `metrics.jsonl`. Observers see numbers and change nothing."""

import json
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lilliput.base.errors import DivergenceError
from lilliput.base.files import write_bytes
from lilliput.objectives.objective import CROSS_ENTROPY
from lilliput.train.alarms import AlarmWatch
from lilliput.train.loggers.logger import LoggerGroup
from lilliput.train.memory import peak_memory
from lilliput.train.metrics_file import WINDOW, headline_entry, keep_until, merged_metrics, note_incident
from lilliput.train.rollback import LossSpike
from lilliput.train.samples import SAMPLES, Samples, in_line
from lilliput.train.validation import Measurement

WIDE = 110
"""Columns of a terminal that has room for a bar beside the numbers."""
QUIET_SECONDS = 15.0
"""Between two lines of progress where the output is no terminal."""


class MetricsLogger:
    """Writes one line a step to `metrics.jsonl` and shows rate, remaining time, loss and bits per byte.

    Args:
        path: of `metrics.jsonl`.
        console: where progress is shown.
        name: of the phase.
        steps: it has in all.
        step: it begins at, 0 for the first time.
        bytes_per_token: of its text; None where bits per byte are no measure.
        device: whose peak memory is recorded; None for no memory.
        feed: of other programs that are shown the same lines.
        alarms: of the phase's objectives.
        after: called after each measurement, and when training ends however it ends.
    """

    def __init__(
        self,
        path: Path,
        console: Console,
        name: str,
        steps: int,
        step: int,
        bytes_per_token: float | None,
        *,
        device: str | None = None,
        after: Callable[[], None] = lambda: None,
        feed: LoggerGroup | None = None,
        alarms: AlarmWatch | None = None,
    ):
        self._path, self._console, self._name, self._steps, self._step = path, console, name, steps, step
        self._bytes_per_token, self._device, self._after = bytes_per_token, device, after
        self._feed, self._alarms = feed or LoggerGroup(), alarms or AlarmWatch(())
        if path.exists() and path.stat().st_size:
            note_incident(path, step, "resumed", "training went on from the last checkpoint")
        keep_until(path, step)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115, closed on exit
        self._recent: deque[tuple[float, int, float]] = deque(maxlen=WINDOW)
        self._last = self._shown = time.perf_counter()
        self._bar = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            *([BarColumn(bar_width=24)] if console.width >= WIDE else []),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=steps, completed=step, note="")

    def __enter__(self) -> "MetricsLogger":
        self._bar.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._bar.stop()
        self._file.close()
        self._feed.close()
        if isinstance(error, DivergenceError):
            note_incident(self._path, self._step, "diverged", error.what)
        if isinstance(error, LossSpike):
            note_incident(self._path, self._step, "set back", error.why)
        self._after()

    def log_step(
        self, step: int, tokens: int, read: int, numbers: dict[str, float], headline: str = CROSS_ENTROPY
    ) -> None:
        """Record a step.

        Args:
            step: from 1.
            tokens: of text, read so far.
            read: tokens of this step.
            numbers: what was computed.
            headline: which of them is shown.
        """
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        self._recent.append((seconds, read, numbers[headline]))
        speed = sum(count for _, count, _ in self._recent) / sum(seconds for seconds, _, _ in self._recent)
        line = {"step": step, "tokens": tokens, "seconds": seconds, "tokens_per_second": round(speed)}
        line |= headline_entry(headline) | numbers
        memory = peak_memory(self._device) if self._device else None
        self._write(line | ({"peak_memory": memory} if memory else {}))
        self._step = step
        for alarm in self._alarms.see(numbers):
            self._console.print(f"  {self._name} step {step}: {alarm}", style="yellow", highlight=False, soft_wrap=True)
            note_incident(self._path, step, "alarm", alarm)
        note = self._note(speed, headline, short=self._console.is_terminal)
        self._bar.update(self._task, completed=step, note=note)
        if not self._console.is_terminal and now - self._shown > QUIET_SECONDS:
            self._shown = now
            left = (self._steps - step) * sum(seconds for seconds, _, _ in self._recent) / len(self._recent)
            self._console.print(
                f"  {self._name} {step}/{self._steps}  {note}  {left:.0f} s left", highlight=False, soft_wrap=True
            )

    def log_validation(self, step: int, tokens: int, measured: Measurement, headline: str = CROSS_ENTROPY) -> None:
        """Record what was found after step `step` and so many text tokens: held-out numbers by corpus, and samples."""
        written = [sample.plain() for sample in measured.samples.written]
        line = {"step": step, "tokens": tokens} | headline_entry(headline) | {"heldout": measured.heldout}
        self._write(line | ({SAMPLES: written} if written else {}))
        shown = "  ".join(
            f"{name} {'not defined' if value is None else f'{value:.4f}'}" for name, value in measured.heldout.items()
        )
        self._console.print(f"  {self._name} step {step}: {shown}", highlight=False, soft_wrap=True)
        self._show_samples(step, measured.samples)
        self._after()
        self._last = time.perf_counter()

    def lines(self) -> bytes:
        """Return what is recorded so far."""
        return self._path.read_bytes()

    def merge(self, ranks: Sequence[bytes], own: int) -> None:
        """Record what ranks have that took steps of their own, one of which is this one; see `merged_metrics`."""
        self._file.close()
        write_bytes(self._path, merged_metrics(ranks, own))
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115, closed on exit

    def _show_samples(self, step: int, samples: Samples) -> None:
        """Show the first sample in one line; a failure is recorded, too."""
        if samples.failure is not None:
            what = f"no samples: {samples.failure}"
            self._console.print(f"  {self._name} step {step}: {what}", style="yellow", highlight=False, soft_wrap=True)
            note_incident(self._path, step, "no samples", samples.failure)
        for sample in samples.written[:1]:
            shown = in_line(sample, self._console.width - 4)
            self._console.print(f"    {shown}", style="dim", markup=False, highlight=False, soft_wrap=True)

    def _note(self, speed: float, headline: str, *, short: bool) -> str:
        losses = [loss for _, _, loss in self._recent]
        mean = sum(losses) / len(losses)
        over = "mean" if short else f"mean of {len(losses)}"  # a bar has to fit 80 columns
        name = "loss" if headline == CROSS_ENTROPY else headline
        note = f"{speed:,.0f} tok/s  {name} {losses[-1]:.3f}, {over} {mean:.3f}"
        if self._bytes_per_token and headline == CROSS_ENTROPY:
            note += f" ({mean / math.log(2) / self._bytes_per_token:.3f} bits/byte)"
        return note

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._feed.log(line)


class NullLogger:
    """Null object for `MetricsLogger` on ranks other than the first: shows nothing and writes nothing."""

    def __enter__(self) -> "NullLogger":
        return self

    def __exit__(self, *error: object) -> None: ...

    def log_step(
        self, step: int, tokens: int, read: int, numbers: dict[str, float], headline: str = CROSS_ENTROPY
    ) -> None: ...

    def log_validation(self, step: int, tokens: int, measured: Measurement, headline: str = CROSS_ENTROPY) -> None: ...

    def lines(self) -> bytes:
        return b""

    def merge(self, ranks: Sequence[bytes], own: int) -> None: ...
