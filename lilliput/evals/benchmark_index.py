"""The n-gram index of evaluation sets, from the questions that evaluation itself reads.

An item is a question with its right answer, which is what a text would have to give away. Wrong choices are left out,
and so are passages that questions are about (BoolQ): they are public text that belongs in any corpus.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lilliput.base.errors import DataError
from lilliput.data.ngram_index import NgramIndex
from lilliput.evals.local_files import Row
from lilliput.evals.question_files import Folder, QuestionSource
from lilliput.evals.suites import SUITES, Suite, TaskUse


@dataclass(frozen=True, kw_only=True)
class BenchmarkIndex:
    """An index, and what is not in it."""

    index: NgramIndex
    absent: Mapping[str, str]
    """Reasons by task whose questions cannot be had."""


def benchmark_index(suites: Iterable[Suite], questions: QuestionSource, work: Path) -> BenchmarkIndex:
    """Index the public questions of suites, and of every other task whose file is in a local folder.

    Args:
        suites: that releases are judged by.
        questions: source of the questions.
        work: a folder for files that have to be written.
    """
    uses = {use.task: use for suite in suites for use in (*suite.tasks, *suite.optional)}
    if isinstance(questions, Folder):
        known = {use.task: use for suite in SUITES.values() for use in (*suite.tasks, *suite.optional)}
        uses |= {task: use for task, use in known.items() if questions.missing(use) is None}
    items: list[tuple[str, str]] = []
    absent: dict[str, str] = {}
    unreachable = ""
    for task, use in sorted(uses.items()):
        if (missing := questions.missing(use)) is not None:
            absent[task] = f"{missing} is not in {questions}"
        elif unreachable:  # libraries try for half a minute before they give up, each time
            absent[task] = unreachable
        else:
            try:
                items += [(task, _text(use, row)) for row in questions.rows(use, work)]
            except DataError as error:
                absent[task] = error.what
                unreachable = "" if isinstance(questions, Folder) else error.what
    return BenchmarkIndex(index=NgramIndex(items), absent=absent)


def indexed_items(use: TaskUse, questions: QuestionSource, work: Path) -> Iterator[str]:
    """Yield the text of every item of a task, in the order in which it is asked.

    Raises:
        DataError: the questions cannot be had.
    """
    return (_text(use, row) for row in questions.rows(use, work))


def _text(use: TaskUse, row: Row) -> str:
    """The text of an item of a task, from a row in the hub's columns."""
    return " ".join(map(str, _ITEMS[use.task](row)))


def _lettered(question: str) -> Callable[[Row], list[Any]]:
    """A question and the choice that its answer key names."""

    def parts(row: Row) -> list[Any]:
        choices = row["choices"]
        return [row[question], choices["text"][choices["label"].index(row["answerKey"].strip())]]

    return parts


def _marked(targets: str) -> Callable[[Row], list[Any]]:
    """A question and the first of its right answers."""
    return lambda row: [row["question"], row[targets]["choices"][row[targets]["labels"].index(1)]]


def _ending(row: Row) -> list[Any]:
    return [row["ctx"], row["endings"][int(row["label"])]]


_ITEMS: dict[str, Callable[[Row], list[Any]]] = {
    "hellaswag": lambda row: [row["ctx_a"], row["ctx_b"], row["endings"][int(row["label"])]],
    "arc_easy": _lettered("question"),
    "arc_challenge": _lettered("question"),
    "piqa": lambda row: [row["goal"], row["sol2" if int(row["label"]) else "sol1"]],
    "copa": lambda row: [row["premise"], row["choice2" if int(row["label"]) else "choice1"]],
    "boolq": lambda row: [row["question"]],
    "wsc": lambda row: [row["text"]],
    "wsc273": lambda row: [row["text"]],
    "winogrande": lambda row: [row["sentence"].replace("_", row[f"option{row['answer']}"])],
    "agieval_aqua_rat": lambda row: [row["query"]],
    "openbookqa": _lettered("question_stem"),
    "commonsense_qa": _lettered("question"),
    "truthfulqa_mc1": _marked("mc1_targets"),
    "truthfulqa_mc2": _marked("mc2_targets"),
    "arithmark2": _ending,
    "arithmark3": _ending,
}
"""Parts of an item by task, from a row whose columns are as `local_files.FILES` has them."""
