"""Public questions that a run has trained on: of each release's scores, what they are on the items that are left.

An item counts as read where the training text has 13 words in a row of its question and right answer, or all of one of
8 to 12 words (`lilliput.data.ngram_index`); shorter items cannot be told from everyday phrases, and count as not read.
The text is that of the token files, decoded: what the model saw, after every filter.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lilliput.base.errors import RunError
from lilliput.base.files import read_json
from lilliput.data.chat_rows import PackedChats
from lilliput.data.encoded_documents import encoded_documents
from lilliput.data.ngram_index import Items, NgramIndex
from lilliput.data.pair_rows import PackedPairs
from lilliput.data.shards import Shards
from lilliput.data.token_files import INDEX
from lilliput.evals.benchmark_index import indexed_items
from lilliput.evals.question_files import QuestionSource
from lilliput.evals.recount import ITEMS_FILE, read_items
from lilliput.evals.score import mean_stderr
from lilliput.evals.suites import TaskUse, named
from lilliput.publish.releases import releases
from lilliput.recipe import Recipe, read_recipe
from lilliput.tokenizer.bpe import load_tokenizer

_KINDS = {"documents": Shards, "conversations": PackedChats, "pairs": PackedPairs}


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
    """Tokens of training text that were looked at, by corpus."""
    short: Mapping[str, int]
    """Items that are too short to be told, by the harness's name of their task."""

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "scores": [asdict(score) for score in self.scores],
            "texts": dict(self.texts),
            "short": dict(self.short),
        }


@dataclass(frozen=True, kw_only=True)
class Overlaps:
    """Items of tasks that a run's training text overlaps."""

    overlapped: frozenset[str]
    """Items as `task/number`, by the names and numbers that the harness has for them."""
    items: Mapping[str, Items]
    """Counts of items, by task."""
    texts: Mapping[str, int]
    """Tokens of training text that were looked at, by corpus."""

    def of(self, task: str) -> int:
        """Return how many items of a task are overlapped."""
        return sum(item.partition("/")[0] == task for item in self.overlapped)


def contamination(
    folder: Path, questions: QuestionSource, *, report: Callable[[str], None] = lambda line: None
) -> Contamination:
    """Look through a run's training text for the questions of its releases' suites.

    Args:
        folder: of the run.
        questions: source of the questions that the releases were asked.
        report: told how far it is.

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
    uses = {
        use.task: use
        for name in items
        for use in (*suites[name].tasks, *suites[name].optional)
        if use.task in items[name] and questions.missing(use) is None
    }
    if not uses:
        raise RunError(
            "none of the questions that its releases were asked are here",
            where=f"{folder} and {questions}",
            hint="give the folder that they were asked from with --eval-data; generated items are in no text",
        )
    found = overlaps(folder, uses, questions, report=report)
    scores = [
        score
        for release, by_task in items.items()
        for task, records in by_task.items()
        if task in uses
        for score in _scores(release, uses[task], records, found.overlapped)
    ]
    short = {task: counts.short for task, counts in found.items.items()}
    return Contamination(scores=tuple(scores), texts=found.texts, short=short)


def overlaps(
    folder: Path,
    uses: Mapping[str, TaskUse],
    questions: QuestionSource,
    *,
    report: Callable[[str], None] = lambda line: None,
) -> Overlaps:
    """Look through a run's training text for the questions of some tasks.

    Args:
        folder: of the run.
        uses: tasks by the harness's name.
        questions: source of their questions, which are there.
        report: told how far it is.

    Raises:
        DataError: questions or token files are missing or damaged.
    """
    with TemporaryDirectory() as work:
        index = NgramIndex(_named(uses, questions, Path(work)))
    texts: dict[str, int] = {}
    overlapped = set[str]()
    for name in _trained(read_recipe(folder)):
        if not (folder / "shards" / name / INDEX).is_file():
            continue  # of a phase that is for another time
        index_file = read_json(folder / "shards" / name / INDEX)
        texts[name] = index_file["sides"]["train"]["tokens"]
        for done, found in enumerate(index.overlaps_of(_texts(folder, name, index_file["kind"]))):
            overlapped.update(found)
            if done % 1_000 == 0:
                report(f"{name}: {done:,} texts, {len(overlapped):,} items overlapped")
    items: dict[str, Items] = {}
    for key, counts in index.items.items():
        before = items.setdefault(key.partition("/")[0], Items())
        items[key.partition("/")[0]] = Items(before.indexed + counts.indexed, before.short + counts.short)
    return Overlaps(overlapped=frozenset(overlapped), items=items, texts=texts)


def _named(uses: Mapping[str, TaskUse], questions: QuestionSource, work: Path) -> Iterator[tuple[str, str]]:
    """Every item by a name of its own: the task and the number that the harness has for it."""
    for task, use in uses.items():
        for number, text in enumerate(indexed_items(use, questions, work)):
            yield f"{task}/{number}", text


def _trained(recipe: Recipe) -> list[str]:
    """Names of the text corpora that phases read."""
    return list(dict.fromkeys(name for phase in recipe.phases.values() for name in phase.reads()))


def _texts(folder: Path, name: str, kind: str) -> Iterator[str]:
    """The training texts of a corpus, from its tokens; the texts themselves may lie on another machine by now."""
    tokenizer, files = load_tokenizer(folder / "tokenizer"), folder / "shards" / name
    for batch in encoded_documents(_KINDS[kind](files), "train"):
        yield from tokenizer.decode_batch([part.tolist() for part in batch if len(part)])


def _scores(
    release: str, use: TaskUse, records: list[dict[str, Any]], overlapped: frozenset[str]
) -> Iterator[CleanScore]:
    clean = [record for record in records if f"{use.task}/{record['doc_id']}" not in overlapped]
    for metric in use.metrics:
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
