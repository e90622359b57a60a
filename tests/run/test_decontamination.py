"""Texts with items of evaluation sets are dropped before training, where the sets are at hand."""

import json
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import tiny
from rich.console import Console
from tiny_commands import contents

from lilliput.base.errors import DataError, RunError
from lilliput.base.run_folder import RunFolder
from lilliput.base.spec import to_plain
from lilliput.evals.question_files import Folder, Hub, QuestionSource
from lilliput.recipe import Recipe
from lilliput.run.asking import Asking
from lilliput.run.before_training import data
from lilliput.run.prepare import Preparation
from lilliput.run.run_data import RunData

QUESTION = "Which of these small green animals with seven legs does sing in the tall trees of the island at night?"
ANSWER = "the striped frog"
OTHERS = ["arithmark2", "arithmark3", "hellaswag", "piqa"]
"""Other tasks of the suite."""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Texts, three of which have the question and its answer, in other letters and between other words."""
    made = tiny.recipe(tmp_path / "corpus")
    path = tmp_path / "corpus" / "texts.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for number in (5, 60, 61):
        rows[number]["text"] += f" {QUESTION.upper()} -- {ANSWER}. And so on."
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = replace(made.timeline[2], suite="open-slm")
    return replace(made, timeline=(*made.timeline[:2], base))


def sets(folder: Path, *tasks: str) -> Folder:
    folder.mkdir()
    choices = {"text": [ANSWER, "the blue hen"], "label": ["A", "B"]}
    for task in tasks:
        row = {"id": "1", "question": QUESTION, "choices": choices, "answerKey": "A"}
        (folder / f"{task}.jsonl").write_text(json.dumps(row) + "\n")
    return Folder(folder)


def prepare(recipe: Recipe, folder: Path, questions: QuestionSource) -> tuple[str, dict]:
    """Write the token files; what was said, and the outputs of the texts."""
    screen = StringIO()
    with RunFolder(folder) as run:
        Preparation(run, recipe, Console(file=screen, width=300), asking=Asking(questions=questions)).everything()
        return screen.getvalue(), run.record("shards/texts")["outputs"]


def test_documents_with_items_are_dropped_and_counted_by_task(recipe: Recipe, tmp_path: Path) -> None:
    said, outputs = prepare(recipe, tmp_path / "run", sets(tmp_path / "eval", "arc_easy.test"))
    assert outputs["dropped"] == {"decontaminate: overlaps arc_easy": 3}
    assert outputs["decontaminated"] == {"compared": ["arc_easy"], "absent": ["arc_challenge", *OTHERS]}
    assert "texts: dropped: 3 decontaminate: overlaps arc_easy" in said
    assert "texts: compared with arc_easy; absent: arc_challenge, arithmark2" in said
    _, whole = prepare(recipe, tmp_path / "other", Hub())
    count = sum(side["documents"] for side in whole["sides"].values())
    assert sum(side["documents"] for side in outputs["sides"].values()) == count - 3


def test_absent_sets_are_named_and_change_nothing(recipe: Recipe, tmp_path: Path) -> None:
    said, outputs = prepare(recipe, tmp_path / "run", Hub())
    assert outputs["decontaminated"] == {"compared": [], "absent": ["arc_challenge", "arc_easy", *OTHERS]}
    assert "dropped" not in outputs and "compared" not in said
    off = replace(recipe, decontaminate=False)
    _, as_it_is = prepare(off, tmp_path / "off", sets(tmp_path / "eval", "arc_easy.test"))
    assert "decontaminated" not in as_it_is and as_it_is["index_sha256"] == outputs["index_sha256"]
    assert "decontaminate" not in to_plain(recipe) and to_plain(off)["decontaminate"] is False
    record = RunFolder(tmp_path / "run").record("shards/texts")
    assert record["from"].keys() == {"corpus", "tokenizer", "split"}, "as before there was a search"


def test_a_run_goes_on_with_the_sets_that_it_began_with(recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    questions = sets(tmp_path / "eval", "arc_easy.test")
    _, outputs = prepare(recipe, folder, questions)
    before = contents(folder / "shards")
    shutil.rmtree(folder / "shards" / "texts")
    assert prepare(recipe, folder, Hub())[1] == outputs
    assert contents(folder / "shards") == before
    # Another set changes the texts of a run that has trained on none of them.
    more = sets(tmp_path / "more", "arc_easy.test", "arc_challenge.test")
    _, other = prepare(recipe, folder, more)
    assert other["dropped"] == {"decontaminate: overlaps arc_challenge, arc_easy": 3}
    assert other["decontaminated"]["absent"] == OTHERS


def test_what_was_trained_on_stays_as_it_was(recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _, outputs = prepare(recipe, folder, sets(tmp_path / "eval", "arc_easy.test"))
    with RunFolder(folder) as run, run.part("phases/00-pretrain", {"tokens": {"texts": outputs}}) as part:
        part.outputs = {}
    more = sets(tmp_path / "more", "arc_easy.test", "arc_challenge.test")
    assert prepare(recipe, folder, more)[1] == outputs
    shutil.rmtree(folder / "shards" / "texts")
    with pytest.raises(RunError, match="evaluation sets, which are others here"):
        prepare(recipe, folder, more)
    assert prepare(recipe, folder, Folder(tmp_path / "eval"))[1] == outputs


def test_documents_are_numbered_without_those_that_were_dropped(recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    asking = Asking(questions=sets(tmp_path / "eval", "arc_easy.test"))
    data(recipe, folder, Console(file=StringIO()), asking=asking)
    run = RunData(folder)
    ids = run.document_ids("texts", set(range(10_000)))
    assert len(ids) == run.record("texts")["sides"]["train"]["documents"]
    (folder / "evaluation_sets" / "items.safetensors").unlink()
    with pytest.raises(DataError, match="not those of the run any more"):
        run.document_ids("texts", {0})
