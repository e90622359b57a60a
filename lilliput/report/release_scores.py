"""Recorded figures of releases side by side, and differences on the items that two of them answered."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lilliput.base.errors import RunError, reading
from lilliput.base.files import read_json
from lilliput.evals.paired import Difference, differences
from lilliput.evals.recount import ITEMS_FILE, read_items
from lilliput.report.judged import scores_table
from lilliput.report.table import Column, Table


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


def is_record(file: str) -> bool:
    """Return whether a name is that of a file of items, as `lilliput eval --records` writes it."""
    return Path(file).is_file() and Path(file).suffix == ".jsonl"


def paired(names: Sequence[str], *, seed: int = 0) -> list[Difference]:
    """Return the differences of the second from the first, on the items that both answered.

    Args:
        names: two releases, or files of their items.
        seed: of the bootstrap.

    Raises:
        RunError: the items of a release were not recorded.
        DataError: a file of items is damaged, or they have none in common.
    """
    first, second = (read_items(_items(name)) for name in names)
    return differences(first, second, seed=seed)


def differences_table(found: Sequence[Difference]) -> Table:
    """The table of `paired`, in percent and points."""
    return Table(
        title="the second less the first, in points, with the 95% interval of a paired bootstrap",
        columns=[
            Column(name="task", cells=[one.task for one in found], is_text=True),
            Column(name="metric", cells=[one.metric for one in found], is_text=True),
            Column(name="first", cells=[f"{one.first:.1%}" for one in found]),
            Column(name="second", cells=[f"{one.second:.1%}" for one in found]),
            Column(name="difference", cells=[f"{100 * one.difference:+.2f}" for one in found]),
            Column(name="95% interval", cells=[f"{100 * one.low:+.2f} to {100 * one.high:+.2f}" for one in found]),
            Column(name="items", cells=[f"{one.items:,}" for one in found]),
            Column(name="", cells=["clear" if one.is_clear else "" for one in found], is_text=True),
        ],
    )


def _items(name: str) -> Path:
    if is_record(name):
        return Path(name)
    folder = Path(name).resolve()
    run = folder.parents[1]
    file = run / "evals" / folder.name / ITEMS_FILE
    if not file.is_file():
        raise RunError(
            "the items of its evaluation were not recorded",
            where=name,
            hint=f"evaluate it again: lilliput clean {run} --from evals/{folder.name} --yes, then lilliput eval {run}",
        )
    return file


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
