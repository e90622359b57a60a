"""Releases in one list: what each scores, with its interval, beside the parameters and operations that it took."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lilliput.base.errors import LilliputError, RunError, reading
from lilliput.base.spec import from_plain
from lilliput.evals.score import NORMAL_95
from lilliput.plan.count import phase_operations
from lilliput.plan.timeline_shapes import timeline_shapes
from lilliput.publish.card.travelling import HINT, read_record
from lilliput.publish.releases import releases
from lilliput.train.metrics_file import positions_of


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A release in the list."""

    name: str
    folder: str
    suite: str
    harness: str
    """Name and version."""
    parameters: int
    tokens: int
    """Text tokens of its training."""
    seconds: float
    """Seconds of its training steps."""
    operations: float | None
    """Floating-point operations of its training; None where the recipe has types that are not here."""
    value: float
    half_width: float | None
    """Half of the interval at 95%; None where the items tell no standard error."""
    higher_is_better: bool
    is_share: bool


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """Releases by one score, the best first."""

    score: str
    entries: tuple[Entry, ...]
    left_out: tuple[str, ...]
    """Names of releases without this score."""

    @property
    def suites(self) -> tuple[str, ...]:
        """The suites of the entries, each once."""
        return tuple(dict.fromkeys(entry.suite for entry in self.entries))

    @property
    def harnesses(self) -> tuple[str, ...]:
        """The harnesses of the entries, each once."""
        return tuple(dict.fromkeys(entry.harness for entry in self.entries))

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "score": self.score,
            "entries": [asdict(entry) for entry in self.entries],
            "left_out": list(self.left_out),
        }


def leaderboard(names: Sequence[Path], *, score: str | None = None) -> Leaderboard:
    """Return the releases of runs, or releases by themselves, by one score.

    Args:
        names: folders of runs or of releases.
        score: an average by its name, or a task and a metric, as in "PIQA/acc"; None for the first average, or else
            the first score, that most of them have.

    Raises:
        ExportError: a release has no record.
        RunError: a run has no releases, or none of them has the score.
    """
    folders = [folder for name in names for folder in _folders(name)]
    records = [(folder, read_record(folder)) for folder in folders]
    with reading("the records of the releases", HINT, "a record is not one of a release"):
        figures = [(folder, record, _figures(record["evaluation"])) for folder, record in records]
        known = dict.fromkeys(name for _, _, each in figures for name in each)
        if score is None:
            score = max(known, key=lambda name: sum(name in each for _, _, each in figures), default="")
        elif score not in known:
            raise RunError(
                f"no release has the score {score!r}", where="--score", hint=f"there are: {', '.join(known) or 'none'}"
            )
        entries = [_entry(folder, record, each[score]) for folder, record, each in figures if score in each]
        left_out = tuple(record["release"]["name"] for _, record, each in figures if score not in each)
    if not entries:
        raise RunError("no release has a score", where=", ".join(map(str, names)), hint="evaluate them first")
    entries.sort(key=lambda entry: -entry.value if entry.higher_is_better else entry.value)
    return Leaderboard(score=score, entries=tuple(entries), left_out=left_out)


def _folders(name: Path) -> list[Path]:
    if not (name / "recipe.json").is_file():
        return [name]
    found = releases(name)
    if not found:
        raise RunError(
            "the run has released nothing", where=str(name), hint=f"publish it first: lilliput publish {name}"
        )
    return found


def _figures(evaluation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The averages, then the scores, of an evaluation by name."""
    averages = {one["name"]: one | {"higher_is_better": True} for one in evaluation["averages"]}
    return averages | {f"{one['task']}/{one['metric']}": one for one in evaluation["scores"]}


def _entry(folder: Path, record: dict[str, Any], figure: dict[str, Any]) -> Entry:
    stderr = figure["stderr"]
    return Entry(
        name=record["release"]["name"],
        folder=str(folder),
        suite=record["release"]["suite"],
        harness=f"lm-evaluation-harness {record['evaluation']['versions']['lm_eval']}",
        parameters=record["release"]["parameters"]["total"],
        tokens=sum(_released(phase)["tokens"] for phase in record["phases"]),
        seconds=sum(_released(phase)["seconds"] for phase in record["phases"]),
        operations=_operations(record),
        value=figure["value"],
        half_width=None if stderr is None else NORMAL_95 * stderr,
        higher_is_better=figure["higher_is_better"],
        is_share="bits" not in figure.get("metric", "") and -1 <= figure["value"] <= 1,
    )


def _released(phase: dict[str, Any]) -> dict[str, Any]:
    """Counts of a phase up to the released model: to the step that a later phase resumes from."""
    return phase.get("resumed_at", phase)


def _operations(record: dict[str, Any]) -> float | None:
    """Operations of all phases, each by the share of its positions up to the released model."""
    try:
        recipe = from_plain(record["recipe"], where="the record")
        shapes = {index: before for index, _, before, _ in timeline_shapes(recipe)}
    except (LilliputError, OSError):  # types of somebody's own, or a checkpoint that is not here
        return None
    recorded = {phase["name"]: phase for phase in record["phases"]}
    total = 0.0
    for index, phase in recipe.phases.items():
        if (found := recorded.get(phase.name)) is not None:
            total += phase_operations(phase, shapes[index]) * positions_of(_released(found)) / positions_of(found)
    return total
