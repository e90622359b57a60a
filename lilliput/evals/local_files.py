"""The files of an evaluation folder: what each task of the harness is called there, and its rows in the hub's columns.

A file is `<name>.jsonl`, plain or compressed, with the columns of the Hugging Face dataset that the task reads. Where
people commonly have another form of the same questions, its rows are rewritten.
"""

import hashlib
import json
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lilliput.base.errors import DataError
from lilliput.data.readers.rows import listed, shown
from lilliput.evals.question_types import (
    CHOICES,
    GAP,
    LETTERED,
    MARKED,
    NUMBER,
    PLACE,
    PLACES,
    TEXT,
    WORDS,
    YES_NO,
    Form,
    is_number,
    is_text,
    one_of,
)

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
    columns: Mapping[str, Form]
    """Columns that a row must have after `rewrite`."""
    answers: Callable[[Row], bool] = lambda row: True
    """True if the right answer of a row with such columns is one of its choices."""
    rewrite: Callable[[Row], Row] = _as_it_is
    note: str = ""
    """Note on what rewritten rows still lack."""


def _super_glue_boolq(row: Row) -> Row:
    """SuperGLUE's columns of a row of google/boolq, whose passages come without a title in front."""
    is_public = "label" not in row and is_number(row.get("answer"), 2)
    return row | {"label": int(row["answer"])} if is_public else row


def _agieval_aqua_rat(row: Row) -> Row:
    """AGIEval's zero-shot form of a row of deepmind/aqua_rat (Zhong et al. 2023, arXiv 2304.06364)."""
    fits = is_text(row.get("question")) and CHOICES.fits(row.get("options")) and row.get("correct") in _LETTERS
    if "query" in row or not fits:
        return row
    choices = [f"({option}" for option in row["options"]]
    question = f"Q: {row['question']} Answer Choices: {' '.join(choices)}"
    return {
        "query": f"{question}\nA: Among A through {_LETTERS[len(choices) - 1]}, the answer is",
        "choices": choices,
        "gold": [_LETTERS.index(row["correct"])],
    }


def _wsc273(row: Row) -> Row:
    """The hub's columns of a row that has the beginnings with either name already in them.

    The harness asks beginnings with the options in the pronoun's place and the text behind it; which pronoun stood
    there decides nothing.
    """
    beginnings, rest = row.get("context_options") or [], row.get("continuation")
    if "text" in row or not CHOICES.fits(beginnings) or not is_text(rest):
        return row
    first, second = beginnings[:2]
    alike = next((place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), len(first))
    begin = first[: first.rfind(" ", 0, alike) + 1]
    options = [one[len(begin) :] for one in beginnings]
    named = {"text": f"{begin}it {rest}", "pronoun": "it", "pronoun_loc": len(begin), "options": options}
    return named | {"label": row.get("gold")}


_LETTERS = tuple(string.ascii_uppercase)
_ARC = {"question": TEXT, "choices": LETTERED, "answerKey": TEXT}
_ARITHMARK = {"ctx": TEXT, "endings": CHOICES, "label": NUMBER}


def _is_lettered(row: Row) -> bool:
    return row["answerKey"].lstrip() in row["choices"]["label"]


def _is_an_ending(row: Row) -> bool:
    return int(row["label"]) < len(row["endings"])


FILES = {
    "hellaswag": LocalFile(
        name="hellaswag.validation",
        split="validation",
        columns={"activity_label": TEXT, "ctx_a": TEXT, "ctx_b": TEXT, "endings": CHOICES, "label": PLACE},
        answers=_is_an_ending,
    ),
    "arc_easy": LocalFile(name="arc_easy.test", split="test", columns=_ARC, answers=_is_lettered),
    "arc_challenge": LocalFile(name="arc_challenge.test", split="test", columns=_ARC, answers=_is_lettered),
    "piqa": LocalFile(
        name="piqa.validation",
        split="validation",
        columns={"goal": TEXT, "sol1": WORDS, "sol2": WORDS, "label": YES_NO},
    ),
    "copa": LocalFile(
        name="copa.validation",
        split="validation",
        columns={
            "premise": WORDS,
            "choice1": WORDS,
            "choice2": WORDS,
            "question": one_of("cause", "effect"),
            "label": YES_NO,
        },
    ),
    "boolq": LocalFile(
        name="boolq.validation",
        split="validation",
        columns={"passage": TEXT, "question": TEXT, "label": YES_NO},
        rewrite=_super_glue_boolq,
        note="passages of google/boolq, without the titles of SuperGLUE's",
    ),
    "wsc": LocalFile(
        name="wsc.validation",
        split="validation",
        columns={"text": TEXT, "span1_text": TEXT, "span2_text": TEXT, "span2_index": NUMBER, "label": YES_NO},
    ),
    "wsc273": LocalFile(
        name="wsc273.test",
        split="test",
        columns={"text": WORDS, "pronoun": WORDS, "pronoun_loc": NUMBER, "options": CHOICES, "label": YES_NO},
        answers=lambda row: row["pronoun_loc"] > 1 and len(row["options"]) == 2,
        rewrite=_wsc273,
    ),
    "winogrande": LocalFile(
        name="winogrande_xl.validation",
        split="validation",
        columns={"sentence": GAP, "option1": TEXT, "option2": TEXT, "answer": one_of("1", "2")},
    ),
    "agieval_aqua_rat": LocalFile(
        name="aqua_rat.test",
        split="test",
        columns={"query": TEXT, "choices": CHOICES, "gold": PLACES},
        answers=lambda row: max(row["gold"]) < len(row["choices"]),
        rewrite=_agieval_aqua_rat,
    ),
    "openbookqa": LocalFile(
        name="openbookqa.test",
        split="test",
        columns={"question_stem": TEXT, "choices": LETTERED, "answerKey": TEXT},
        answers=_is_lettered,
    ),
    "commonsense_qa": LocalFile(
        name="commonsense_qa.validation",
        split="validation",
        columns=_ARC | {"answerKey": one_of(*"ABCDE")},
        answers=lambda row: len(row["choices"]["text"]) == 5,
    ),
    "truthfulqa_mc1": LocalFile(
        name="truthful_qa_mc.validation", split="validation", columns={"question": TEXT, "mc1_targets": MARKED}
    ),
    "truthfulqa_mc2": LocalFile(
        name="truthful_qa_mc.validation", split="validation", columns={"question": TEXT, "mc2_targets": MARKED}
    ),
    "arithmark2": LocalFile(name="arithmark_2.0", split="test", columns=_ARITHMARK, answers=_is_an_ending),
    "arithmark3": LocalFile(name="arithmark_3.0", split="test", columns=_ARITHMARK, answers=_is_an_ending),
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
        DataError: it lacks one of them, one has another form, or the right answer is not one of the choices.
    """
    rewritten = file.rewrite(row)
    lacking = [column for column in file.columns if column not in rewritten]
    if lacking:
        raise DataError(
            f"there is no column {', '.join(map(repr, lacking))}",
            where=where,
            hint=f"a row has {', '.join(file.columns)}; this one has {listed(row) if row else 'nothing'}",
        )
    for column, form in file.columns.items():
        if not form.fits(rewritten[column]):
            raise DataError(
                f"column {column!r} is {shown(rewritten[column])}, not {form.says}", where=where, hint=_AS_ON_THE_HUB
            )
    if not file.answers(rewritten):
        raise DataError("the right answer is not one of the choices", where=where, hint=_AS_ON_THE_HUB)
    return rewritten


_AS_ON_THE_HUB = "write the row as the task's dataset on the hub has it, or leave it out"
