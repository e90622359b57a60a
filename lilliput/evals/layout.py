"""The files of an evaluation folder: what each task of the harness is called there, and its rows in the hub's columns.

A file is `<name>.jsonl`, plain or compressed, with the columns of the Hugging Face dataset that the task reads. Where
people commonly have another form of the same questions, its rows are rewritten.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from lilliput.base.errors import DataError

Row = dict[str, Any]


def _as_it_is(row: Row) -> Row:
    return row


@dataclass(frozen=True, kw_only=True)
class LocalFile:
    """One task's file."""

    name: str
    """Without `.jsonl` and what follows it."""
    split: str
    """The split of the hub's dataset that the task asks, which the file stands for."""
    columns: tuple[str, ...]
    """What a row must have after `rewrite`."""
    rewrite: Callable[[Row], Row] = _as_it_is
    note: str = ""
    """What rewritten rows still lack."""


def _super_glue_boolq(row: Row) -> Row:
    """SuperGLUE's columns of a row of google/boolq, whose passages come without a title in front."""
    return row if "label" in row or "answer" not in row else row | {"label": int(row["answer"])}


def _agieval_aqua_rat(row: Row) -> Row:
    """AGIEval's zero-shot form of a row of deepmind/aqua_rat (Zhong et al. 2023, arXiv 2304.06364)."""
    if "query" in row or not {"question", "options", "correct"} <= set(row):
        return row
    choices = [f"({option}" for option in row["options"]]
    last = chr(ord("A") + len(choices) - 1)
    question = f"Q: {row['question']} Answer Choices: {' '.join(choices)}"
    return {
        "query": f"{question}\nA: Among A through {last}, the answer is",
        "choices": choices,
        "gold": [ord(row["correct"]) - ord("A")],
    }


_ARC = ("question", "choices", "answerKey")
_ARITHMARK = ("ctx", "endings", "label")

FILES = {
    "hellaswag": LocalFile(
        name="hellaswag.validation",
        split="validation",
        columns=("activity_label", "ctx_a", "ctx_b", "endings", "label"),
    ),
    "arc_easy": LocalFile(name="arc_easy.test", split="test", columns=_ARC),
    "arc_challenge": LocalFile(name="arc_challenge.test", split="test", columns=_ARC),
    "piqa": LocalFile(name="piqa.validation", split="validation", columns=("goal", "sol1", "sol2", "label")),
    "copa": LocalFile(
        name="copa.validation", split="validation", columns=("premise", "choice1", "choice2", "question", "label")
    ),
    "boolq": LocalFile(
        name="boolq.validation",
        split="validation",
        columns=("passage", "question", "label"),
        rewrite=_super_glue_boolq,
        note="passages of google/boolq, without the titles of SuperGLUE's",
    ),
    "wsc": LocalFile(
        name="wsc.validation",
        split="validation",
        columns=("text", "span1_text", "span2_text", "span2_index", "label"),
    ),
    "winogrande": LocalFile(
        name="winogrande_xl.validation", split="validation", columns=("sentence", "option1", "option2", "answer")
    ),
    "agieval_aqua_rat": LocalFile(
        name="aqua_rat.test", split="test", columns=("query", "choices", "gold"), rewrite=_agieval_aqua_rat
    ),
    "openbookqa": LocalFile(name="openbookqa.test", split="test", columns=("question_stem", "choices", "answerKey")),
    "commonsense_qa": LocalFile(name="commonsense_qa.validation", split="validation", columns=_ARC),
    "truthfulqa_mc1": LocalFile(
        name="truthful_qa_mc.validation", split="validation", columns=("question", "mc1_targets")
    ),
    "truthfulqa_mc2": LocalFile(
        name="truthful_qa_mc.validation", split="validation", columns=("question", "mc2_targets")
    ),
    "arithmark2": LocalFile(name="arithmark_2.0", split="test", columns=_ARITHMARK),
    "arithmark3": LocalFile(name="arithmark_3.0", split="test", columns=_ARITHMARK),
}
"""By the harness's name of the task."""


def identity_of(questions: Iterable[Row], file: LocalFile) -> str:
    """SHA-256 of what a task reads of its questions, in their order: wherever they are stored, and in which form."""
    digest = hashlib.sha256()
    for question in questions:
        read = json.dumps([question[column] for column in file.columns], sort_keys=True, separators=(",", ":"))
        digest.update(read.encode() + b"\n")
    return digest.hexdigest()


def checked(row: Row, file: LocalFile, *, where: str) -> Row:
    """A row in the hub's columns.

    Raises:
        DataError: it lacks one of them.
    """
    rewritten = file.rewrite(row)
    lacking = [column for column in file.columns if column not in rewritten]
    if lacking:
        raise DataError(
            f"there is no column {', '.join(map(repr, lacking))}",
            where=where,
            hint=f"a row has {', '.join(file.columns)}; this one has {', '.join(row) or 'nothing'}",
        )
    return rewritten
