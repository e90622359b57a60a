"""Recorded figures of releases side by side, base models and post-trained ones alike."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lilliput.base.errors import RunError, reading
from lilliput.base.files import read_json
from lilliput.report.judged import scores_table
from lilliput.report.table import Table


def is_release(folder: str) -> bool:
    """Return whether a name is the folder of a release in a run, and not of the run."""
    path = Path(folder)
    return (path / "lilliput.json").is_file() and path.resolve().parent.name == "releases"


def release_scores(folders: Sequence[str]) -> dict[str, Any]:
    """Return the figures of the evaluation of each release as a JSON value.

    Raises:
        RunError: a release was not evaluated, or its record is damaged.
    """
    return {"releases": [{"release": folder, "scores": _scores(Path(folder))} for folder in folders]}


def release_table(found: dict[str, Any]) -> Table:
    """The table of `release_scores`."""
    names = [Path(one["release"]).name for one in found["releases"]]
    names = names if len(set(names)) == len(names) else [one["release"] for one in found["releases"]]
    return scores_table(names, [one["scores"] for one in found["releases"]])


def _scores(folder: Path) -> list[dict[str, Any]]:
    run = folder.resolve().parents[1]
    file, hint = run / "evals" / f"{folder.resolve().name}.json", f"evaluate it: lilliput eval {run}"
    if not file.is_file():
        raise RunError("the release was not evaluated", where=str(folder), hint=hint)
    with reading(file, hint, "the record of its evaluation is damaged"):
        scores = read_json(file)["scores"]
        needed = ("task", "metric", "value", "stderr", "chance", "higher_is_better")
        return [{key: score[key] for key in needed} for score in scores]
