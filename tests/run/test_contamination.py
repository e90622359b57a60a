"""Questions that are in a run's training text are found again in its tokens, and scores are given without them."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import tiny_questions
from rich.console import Console
from typer.testing import CliRunner

from lilliput.base.errors import ExportError, RunError
from lilliput.cli.app import app
from lilliput.evals.question_files import Folder
from lilliput.recipe import Release
from lilliput.run.contamination import contamination
from lilliput.run.pipeline import run
from lilliput.run.verify_release import verify_release
from lilliput.train.machine import Machine

pytestmark = pytest.mark.slow
READ = (2, 5, 7)
"""Questions of ARC-Easy that are put into the text."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("contamination")
    questions = tiny_questions.write_folder(folder / "eval")
    recipe = tiny.recipe(folder / "text", tiny.SPECS["gqa"])
    index = next(index for index, entry in enumerate(recipe.timeline) if isinstance(entry, Release))
    release = recipe.timeline[index]
    assert isinstance(release, Release)
    timeline = (*recipe.timeline[:index], replace(release, suite="open-slm"))
    recipe = replace(recipe, timeline=timeline, decontaminate=False)  # or nothing would be left to be found
    (texts,) = recipe.corpora["texts"].paths  # type: ignore[attr-defined]
    rows = [dict(row, question=f"Number {number} of the questions that stand in no other text: {row['question']}")
            for number, row in enumerate(tiny_questions.local_rows("arc_easy.test"))]  # fmt: skip
    for path in questions.glob("arc_easy.test.jsonl*"):
        path.unlink()
    (questions / "arc_easy.test.jsonl").write_text(tiny_questions.lines(rows))
    said = [
        f"{rows[number]['question']} "
        f"{rows[number]['choices']['text'][rows[number]['choices']['label'].index(rows[number]['answerKey'])]}"
        for number in READ
    ]
    with open(texts, "a", encoding="utf-8") as file:
        # Some groups of documents are held out; one text in many is on the training side.
        file.writelines(json.dumps({"text": f"{one} Copy {copy}."}) + "\n" for one in said for copy in range(6))
    machine = Machine(device="cpu", precision="fp32", threads=1)
    run(recipe, folder / "run", machine, Console(file=io.StringIO()), Folder(questions))
    return folder / "run", questions


def test_items_in_the_text_are_counted_and_left_out(made: tuple[Path, Path]) -> None:
    folder, questions = made
    found = contamination(folder, Folder(questions))
    scores = {(score.task, score.metric): score for score in found.scores}
    easy = scores["ARC-Easy", "acc"]
    assert (easy.items, easy.overlapped) == (12, len(READ)) and easy.release == "tiny-base"
    rows = [json.loads(line) for line in (folder / "evals" / "tiny-base" / "items.jsonl").read_text().splitlines()]
    kept = [row["acc"] for row in rows if row["task"] == "arc_easy" and row["doc_id"] not in READ]
    assert easy.clean == pytest.approx(sum(kept) / 9)
    assert scores["PIQA", "acc"].overlapped == 0 and scores["PIQA", "acc"].clean == scores["PIQA", "acc"].value
    assert found.texts["texts"] > 1_000 and set(found.short) == {"hellaswag", "arc_easy", "arc_challenge", "piqa"}


def test_the_command_prints_both_scores(made: tuple[Path, Path]) -> None:
    folder, questions = made
    told = CliRunner().invoke(app, ["contamination", str(folder), "--eval-data", str(questions)])
    assert told.exit_code == 0, told.output
    assert "3 of 12" in told.output and "looked through" in told.output
    plain = CliRunner().invoke(app, ["contamination", str(folder), "--eval-data", str(questions), "--json"])
    assert {score["task"] for score in json.loads(plain.output)["scores"]} >= {"ARC-Easy", "HellaSwag"}


def test_without_recorded_items_or_questions_there_is_nothing_to_say(made: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="none of the questions"):
        contamination(made[0], Folder(tmp_path))


def test_the_card_has_both_scores_and_they_are_verified(made: tuple[Path, Path]) -> None:
    folder, _ = made
    release = folder / "releases" / "tiny-base"
    card = (release / "README.md").read_text()
    section = card.partition("### Items in the training text")[2].partition("\n#")[0]
    assert "| ARC-Easy | acc | 3 of 12 |" in section and "No item was found of" in section and "PIQA" in section
    assert "tokens of `texts`" in section
    verify_release(release)
    record = json.loads((folder / "evals" / "tiny-base.json").read_text())
    record["contamination"]["scores"][0]["clean"] = 0.99
    (folder / "evals" / "tiny-base.json").write_text(json.dumps(record))
    with pytest.raises(ExportError, match=r"evaluation.contamination"):
        verify_release(release)


def test_the_page_about_the_data_counts_the_same_items(made: tuple[Path, Path], tmp_path: Path) -> None:
    folder, questions = made
    page = tmp_path / "page.html"
    options = ["--report", "--page", str(page), "--eval-data", str(questions)]
    told = CliRunner().invoke(app, ["data", str(folder), *options])
    assert told.exit_code == 0, told.output
    row = page.read_text().partition("<td>ARC-Easy</td>")[2].partition("</tr>")[0]
    assert '<td class="n">12</td><td class="n">3</td>' in row
