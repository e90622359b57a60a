"""`metrics.jsonl`, the record of a phase, and `incidents.jsonl` beside it.

A line a step:         step, tokens (text that was read), positions (that were processed, fewer where bags are larger),
                       seconds, tokens_per_second, losses by term, grad_norm, grad_norm/<role>, lr, ...; where ranks
                       exchange, bytes_sent and bytes_received since the line before
A line a measurement:  step, tokens, and `heldout`, numbers by corpus: of the averaged weights where there is an
                       average, which are those a release has, and then `<corpus>/live` of the weights that are trained;
                       `samples`, a corpus, a prompt and a text each, which the same weights wrote
A line an incident:    step, incident, what

Metrics are a function of the step, but for what a clock or the memory said: a run that was killed and continued has
those of one that was not. Incidents are what really happened, and stay.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from lilliput.base.errors import RunError
from lilliput.base.files import write_text
from lilliput.objectives.objective import CROSS_ENTROPY

Line = dict[str, Any]
HEADLINE = "headline"
"""The key of the name of what a phase follows, in lines of objectives whose headline is not cross-entropy."""
INCIDENTS = "incidents.jsonl"
EXCHANGED = frozenset({"bytes_sent", "bytes_received"})
WINDOW = 50
"""Steps over which a loss, and the speed, are averaged wherever one figure is told: a single step is noise."""
LIVE = "/live"
"""After the name of a corpus that was measured on live weights, where those of the average bear the name alone."""


def read_metrics(path: Path) -> list[Line]:
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
                hint="put the file back from a copy, or remove the line: the card and the plot do without it",
            ) from error
    return lines


def read_growing(path: Path) -> list[Line]:
    """The same while another process writes there: nothing where there is no file, and no last line that is torn."""
    data = path.read_bytes() if path.is_file() else b""
    whole = data[: data.rfind(b"\n") + 1].decode(errors="replace")
    found = []
    for line in whole.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            return read_metrics(path)  # says which line it is
    return found


def steps_of(lines: list[Line]) -> list[Line]:
    """The lines of steps."""
    return [line for line in lines if "tokens_per_second" in line]


def measured_of(lines: list[Line]) -> list[Line]:
    """Return the lines of measurements on held-out data, without numbers that an objective does not define."""
    found = [line for line in lines if "heldout" in line]
    return [
        line | {"heldout": {name: one for name, one in line["heldout"].items() if one is not None}} for line in found
    ]


def headline_entry(headline: str) -> dict[str, str]:
    """Return what a line says of its headline: its name, unless it is cross-entropy."""
    return {} if headline == CROSS_ENTROPY else {HEADLINE: headline}


def headline_of(line: Line) -> str:
    """Return the name of the headline of a line; cross-entropy, where nothing else is said."""
    return line.get(HEADLINE, CROSS_ENTROPY)


def positions_of(counts: Any) -> int:
    """Return the positions processed, of a step or a record of a phase; as many as tokens if it gives none."""
    return counts["positions"] if "positions" in counts else counts["tokens"]


def recent_loss(steps: list[Line]) -> float:
    """Return the mean headline of the last `WINDOW` steps, of at least one; of those that have the last one's."""
    name = headline_of(steps[-1])
    return fmean(line[name] for line in steps[-WINDOW:] if name in line)


def released(measured: Line) -> dict[str, float]:
    """The numbers of a measurement by corpus, of the weights that a release has."""
    return {name: value for name, value in measured["heldout"].items() if not name.endswith(LIVE)}


def keep_until(path: Path, step: int) -> None:
    """Drop what an interrupted run wrote beyond the checkpoint it continues from."""
    if path.exists():
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
        write_text(path, "".join(f"{line}\n" for line in lines))


def merged_metrics(ranks: Sequence[bytes], own: int) -> bytes:
    """Return the metrics of ranks that took steps of their own, as the file of one of them.

    Each step is there once, also where one of the files is merged already; measurements are those of the first rank,
    and bytes that others exchanged are in their own files alone.
    """
    found: dict[tuple[int, bool], bytes] = {}
    for rank in sorted(range(len(ranks)), key=lambda rank: rank != own):
        for line in ranks[rank].splitlines():
            numbers = json.loads(line)
            key = numbers["step"], "heldout" in numbers
            if key in found or (key[1] and rank):
                continue
            if rank != own and not EXCHANGED.isdisjoint(numbers):
                line = json.dumps({name: one for name, one in numbers.items() if name not in EXCHANGED}).encode()
            found[key] = line
    return b"".join(found[key] + b"\n" for key in sorted(found))


def last_step(path: Path) -> int:
    """The last step that a `metrics.jsonl` has whole; 0 if none, or no file."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return max((int(step) for line in lines if math.isfinite(step := _step_of(line))), default=0)


def note_incident(metrics: Path, step: int, incident: str, what: str) -> None:
    """Note what happened to a phase after step `step`, beside its metrics: `resumed`, `diverged`, `set back`, `alarm`.

    Args:
        metrics: the phase's `metrics.jsonl`.
        step: number of the step.
        incident: its kind.
        what: a sentence about it.
    """
    with open(metrics.with_name(INCIDENTS), "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "incident": incident, "what": what}, ensure_ascii=False) + "\n")


def _step_of(line: str) -> float:
    """The step of a line of metrics; infinity for the torn last line of a killed process."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return math.inf
