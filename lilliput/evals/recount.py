"""Recorded scores counted again: from themselves, as far as a share tells its right answers, and from their items."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from lilliput.base.errors import DataError, reading
from lilliput.data.attainable import COUNTED, count_of
from lilliput.evals.averages import averaged
from lilliput.evals.score import Score, mean_stderr
from lilliput.evals.suites import TRUTHFULQA_MC2, Suite

ITEMS_FILE = "items.jsonl"
"""In the folder of an evaluation: what `write_records` wrote."""
NEAR = 1e-9


def contradictions(evaluation: Mapping[str, Any], suite: Suite) -> list[str]:
    """Say what of an evaluation cannot be: shares that are no counts, standard errors and averages of other scores.

    Args:
        evaluation: its recorded scores and averages, as JSON values.
        suite: whose averages and tasks these are.
    """
    scores = [_score(plain) for plain in evaluation["scores"]]
    found = [text for score in scores for text in _of_score(score)]
    tasks = {use.display: use.task for use in suite.uses}
    known = {(tasks.get(score.task, score.task), score.metric): score for score in scores}
    computed = {average.name: averaged(average, known) for average in suite.averages}
    for average in evaluation["averages"]:
        value, name = computed.get(average["name"]), average["name"]
        if value is None:
            found.append(f"the average {name} is none that suite {suite.name!r} makes of these scores")
            continue
        for key, again in (("value", value.value), ("stderr", value.stderr)):
            if not _equal(average[key], again):
                found.append(f"{key} of the average {name} is {_shown(average[key])}, its parts give {_shown(again)}")
    return found


def recounted(evaluation: Mapping[str, Any], suite: Suite, items: Path) -> tuple[int, list[str]]:
    """Count the scores of public and generated items again.

    Args:
        evaluation: its recorded scores, as JSON values.
        suite: whose tasks these are.
        items: what `write_records` wrote.

    Returns:
        Number of items that were read, and what the scores say otherwise.

    Raises:
        DataError: the file is damaged.
    """
    by_task = read_items(items)
    tasks, found = {use.display: use.task for use in suite.uses}, []
    for plain in evaluation["scores"]:
        records = by_task.get(tasks.get(plain["task"], ""), [])
        if not records:
            continue
        with reading(items, "evaluate the release again", "an item is damaged", kind=DataError):
            again = _aggregate([record[plain["metric"]] for record in records])
        name = f"{plain['task']} ({plain['metric']})"
        if len(records) != plain["items"]:
            found.append(f"{name} is of {plain['items']:,} items, the record has {len(records):,}")
        if not _equal(plain["value"], again):
            found.append(f"{name} is {plain['value']:.6f}, its items give {again:.6f}")
    return sum(map(len, by_task.values())), found


def read_items(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The records of every item, by the harness's name of their task.

    Raises:
        DataError: a line is damaged.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    with reading(path, "evaluate again with --records", "the records of items are damaged", kind=DataError):
        for record in _lines(path):
            found.setdefault(record["task"], []).append(record)
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        yield from map(json.loads, file)


def _aggregate(values: Sequence[Any]) -> float:
    """The mean of items; of pairs of a log-likelihood and bytes, bits per byte."""
    if isinstance(values[0], list):
        total, size = (sum(column) for column in zip(*values, strict=True))
        return -total / size / math.log(2)
    return math.fsum(values) / len(values)


def _of_score(score: Score) -> Iterator[str]:
    if score.metric not in COUNTED or score.task == TRUTHFULQA_MC2.display:
        return
    name = f"{score.task} ({score.metric})"
    count = count_of(score.value, score.items)
    if count is None:
        yield f"{name} is {score.value:.6f}, no share of {score.items:,} items"
        return
    again = mean_stderr([1.0] * count + [0.0] * (score.items - count))
    if not _equal(score.stderr, again):
        yield f"{name} has the standard error {_shown(score.stderr)}, {count:,} of {score.items:,} give {_shown(again)}"


def _score(plain: Mapping[str, Any]) -> Score:
    return Score(**{field.name: plain[field.name] for field in fields(Score)})


def _equal(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=NEAR, abs_tol=NEAR)


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.6f}"
