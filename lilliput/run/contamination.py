"""Scores of releases on the items that their training text does not give away (`lilliput.run.read_items`)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lilliput.base.errors import RunError
from lilliput.evals.question_files import QuestionSource
from lilliput.evals.recount import ITEMS_FILE, read_items
from lilliput.evals.score import mean_stderr
from lilliput.evals.suites import Suite, TaskUse, named
from lilliput.publish.releases import releases
from lilliput.recipe import Recipe, read_recipe
from lilliput.run.read_items import ReadItems, find_read_items, item_key
from lilliput.train.phase import Phase

Items = Mapping[str, Sequence[Mapping[str, Any]]]
"""Recorded items of an evaluation, by the harness's name of their task."""


@dataclass(frozen=True, kw_only=True)
class CleanScore:
    """A score on all items, and on those that the training text does not overlap."""

    release: str
    task: str
    metric: str
    items: int
    overlapped: int
    value: float
    clean: float | None
    """None where nothing is left."""
    clean_stderr: float | None


@dataclass(frozen=True, kw_only=True)
class Contamination:
    """Overlaps of a run's training text with the questions of its releases."""

    scores: tuple[CleanScore, ...]
    texts: Mapping[str, int]
    """Tokens of training text that were searched, by corpus."""
    short: Mapping[str, int]
    """Items that are too short to be told, by the harness's name of their task."""

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "scores": [asdict(score) for score in self.scores],
            "texts": dict(self.texts),
            "short": dict(self.short),
        }


def contamination(
    folder: Path, questions: QuestionSource, *, report: Callable[[str], None] = lambda line: None
) -> Contamination:
    """Search a run's training text for the questions of its releases' suites.

    Args:
        folder: of the run.
        questions: source of the questions that the releases were asked.
        report: called as the search proceeds.

    Raises:
        RunError: the run has no release whose items were recorded.
        DataError: questions or token files are missing or damaged.
    """
    recipe = read_recipe(folder)
    evaluated = {one.name: folder / "evals" / one.name / ITEMS_FILE for one in releases(folder)}
    items = {name: read_items(file) for name, file in evaluated.items() if file.is_file()}
    if not items:
        raise RunError(
            "no release has recorded the items of its evaluation",
            where=str(folder),
            hint=f"evaluate it with this version of Lilliput: lilliput eval {folder}",
        )
    suites = {release.name: named(release.suite) for release in recipe.releases.values()}
    uses = {use.task: use for name in items for use in searchable(suites[name], questions, items[name])}
    if not uses:
        raise RunError(
            "none of the questions that its releases were asked are here",
            where=f"{folder} and {questions}",
            hint="give the folder that they were asked from with --eval-data; generated items are in no text",
        )
    found = find_read_items(folder, trained_corpora(recipe), uses.values(), questions, report=report)
    scores = (score for name, recorded in items.items() for score in clean_scores(name, uses.values(), recorded, found))
    return Contamination(
        scores=tuple(scores),
        texts=found.texts,
        short={task: counts.short for task, counts in found.counts.items()},
    )


def searchable(suite: Suite, questions: QuestionSource, tasks: Iterable[str]) -> tuple[TaskUse, ...]:
    """Return the tasks of a suite, among those with these names, whose public questions are at hand."""
    asked = set(tasks)
    return tuple(use for use in (*suite.tasks, *suite.optional) if use.task in asked and questions.missing(use) is None)


def trained_corpora(recipe: Recipe, before: int | None = None) -> list[str]:
    """Return the names of the corpora that phases read, those of the first `before` entries of the timeline."""
    phases = (entry for entry in recipe.timeline[:before] if isinstance(entry, Phase))
    return list(dict.fromkeys(name for phase in phases for name in phase.reads()))


def clean_scores(release: str, uses: Iterable[TaskUse], recorded: Items, found: ReadItems) -> Iterator[CleanScore]:
    """Yield the scores of a release on all of its items, and on those that were not found in its training text.

    Args:
        release: its name.
        uses: tasks that were searched for.
        recorded: items of its evaluation.
        found: those that the training text overlaps.
    """
    for use in uses:
        records = recorded.get(use.task, ())
        clean = [record for record in records if item_key(use.task, record["doc_id"]) not in found.items]
        for metric in use.metrics if records else ():
            values = [float(record[metric]) for record in clean]
            yield CleanScore(
                release=release,
                task=use.display,
                metric=metric,
                items=len(records),
                overlapped=len(records) - len(clean),
                value=float(np.mean([float(record[metric]) for record in records])),
                clean=float(np.mean(values)) if values else None,
                clean_stderr=mean_stderr(values) if len(values) > 1 else None,
            )
