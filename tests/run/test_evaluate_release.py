"""A release is asked a card's suite on the questions it is given, and refused them before it is trained."""

import io
import lzma
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_questions
from rich.console import Console
from tiny import recipe

from lilliput.base.errors import DataError
from lilliput.base.files import read_json
from lilliput.evals.question_files import Folder, Hub, QuestionSource
from lilliput.evals.suites import SMOKE
from lilliput.recipe import Recipe, Release
from lilliput.run.pipeline import run
from lilliput.train.machine import Machine

pytestmark = pytest.mark.slow

CPU = Machine(device="cpu", threads=1)


def base_only(folder: Path, suite: str) -> Recipe:
    """Text to a base release that is asked a suite."""
    whole = recipe(folder)
    index = next(index for index, entry in enumerate(whole.timeline) if isinstance(entry, Release))
    release = whole.timeline[index]
    assert isinstance(release, Release)
    return replace(whole, timeline=(*whole.timeline[:index], replace(release, suite=suite)))


def test_a_release_is_asked_the_questions_of_its_suite(tmp_path: Path) -> None:
    questions = Folder(tiny_questions.write_folder(tmp_path / "eval"))
    run(base_only(tmp_path / "text", "open-slm"), tmp_path / "run", CPU, Console(file=io.StringIO()), questions)
    evaluation = read_json(tmp_path / "run" / "evals" / "tiny-base.json")
    tasks = dict.fromkeys(score["task"] for score in evaluation["scores"])
    assert list(tasks) == [
        "HellaSwag",
        "ARC-Easy",
        "ARC-Challenge",
        "PIQA",
        "held-out text, bits per byte",
        "arithmark2-synthetic",
    ]
    assert {average["name"] for average in evaluation["averages"]} == {"headline", "arc_avg_acc", "arc_avg_accnorm"}
    assert evaluation["samples"] and evaluation["versions"] and evaluation["baselines"]["xz"] > 0
    assert "ARC-Challenge" in (tmp_path / "run" / "releases" / "tiny-base" / "README.md").read_text()


def test_scores_are_kept_until_other_questions_are_given(tmp_path: Path) -> None:
    """Whatever the option of a later command: nothing is asked of the hub, which the tests forbid."""
    questions = tiny_questions.write_folder(tmp_path / "eval")
    recipe, made = base_only(tmp_path / "text", "smoke"), tmp_path / "run" / "evals" / "tiny-base.json"

    def go_on(items: QuestionSource) -> dict[str, Any]:
        run(recipe, tmp_path / "run", CPU, Console(file=io.StringIO()), items)
        return read_json(made)

    before = go_on(Folder(questions))
    assert before["questions"] == Folder(questions).identity(SMOKE.tasks)
    record = tmp_path / "run" / "parts" / "evals.tiny-base.json"
    written = record.stat().st_mtime_ns
    moved = questions.rename(tmp_path / "moved")
    plain = moved / "piqa.validation.jsonl"
    plain.with_suffix(".jsonl.xz").write_bytes(lzma.compress(plain.read_bytes()))
    plain.unlink()
    for items in (Hub(), Folder(moved)):
        assert go_on(items) == before and record.stat().st_mtime_ns == written
    plain.write_text(tiny_questions.lines(tiny_questions.local_rows("piqa.validation")[::-1]), encoding="utf-8")
    after = go_on(Folder(moved))
    assert record.stat().st_mtime_ns != written
    assert {task for task, hashed in after["questions"].items() if before["questions"][task] != hashed} == {"piqa"}
    assert go_on(Hub()) == after


def test_a_suite_without_its_files_is_refused_before_training(tmp_path: Path) -> None:
    questions = tiny_questions.write_folder(tmp_path / "eval")
    (questions / "piqa.validation.jsonl").unlink()
    with pytest.raises(DataError, match="lacks piqa.validation.jsonl"):
        run(
            base_only(tmp_path / "text", "odinnext"),
            tmp_path / "run",
            CPU,
            Console(file=io.StringIO()),
            Folder(questions),
        )
    assert not list((tmp_path / "run").glob("phases/*"))
