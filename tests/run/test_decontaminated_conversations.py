"""Conversations, pairs and a teacher's replies with items of evaluation sets are dropped before training."""

import json
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import tiny
from rich.console import Console
from tiny_commands import contents

from lilliput.base.run_folder import RunFolder
from lilliput.base.units import Tokens
from lilliput.computations.reference_log_probabilities import ReferenceLogProbabilities
from lilliput.data.chat_rows import ChatData
from lilliput.data.corpora.pairs import PairFiles
from lilliput.data.corpora.teacher import Teacher
from lilliput.data.dropped import read_samples
from lilliput.data.pair_data import PairData
from lilliput.data.replies.reply_filters import ReplyFilters
from lilliput.evals.question_files import Folder, Hub, QuestionSource
from lilliput.objectives.dpo import DPO
from lilliput.recipe import Recipe
from lilliput.run.asking import Asking
from lilliput.run.before_training import data
from lilliput.run.data_facts import data_facts
from lilliput.run.run_data import RunData
from lilliput.train.phase import Stage

LONG = "Which of these small green animals with seven legs does sing in the tall trees of the island at night?"
SHORT, ANSWER = "Which frog sings in the tall trees?", "The striped one"
"""A question that says nothing by itself: an item of ten words is there only with its answer."""
OTHERS = ["arc_challenge", "arithmark2", "arithmark3", "hellaswag", "piqa"]
CONVERSATIONS = ("chats", "pairs", "replies")
ITEMS = "decontaminate: overlaps arc_easy"


@pytest.fixture
def sets(tmp_path: Path) -> Folder:
    folder = tmp_path / "eval"
    folder.mkdir()
    choices = {"text": [ANSWER, "the blue hen"], "label": ["A", "B"]}
    rows = [
        {"id": str(n), "question": one, "choices": choices, "answerKey": "A"} for n, one in enumerate((LONG, SHORT))
    ]
    (folder / "arc_easy.test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Folder(folder)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Three conversations and three pairs have an item: in one message, over two of them, and in a rejected answer."""
    folder = tmp_path / "corpus"
    base = tiny.recipe(folder)
    pretraining, _, release, chatml, sft, _ = base.timeline
    talks = [json.loads(line) for line in (folder / "chats.jsonl").read_text().splitlines()]
    talks[7]["messages"][1]["content"] += f" By the way: {LONG.upper()}"
    talks[8]["messages"] = [turn("system", "Be brief."), turn("user", SHORT), turn("assistant", f"{ANSWER}.")]
    talks[9]["messages"] = [turn("user", f"Hello. {SHORT}"), turn("assistant", f"{ANSWER}, as we know.")]
    talks[10]["messages"] = [turn("user", SHORT), turn("assistant", "The blue hen.")]  # no right answer, no item
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in talks))
    pairs = [{"prompt": f"Question {n}?", "chosen": f"It is {n}.", "rejected": "Nobody knows."} for n in range(120)]
    pairs[3]["prompt"] = LONG
    pairs[4] |= {"prompt": SHORT, "chosen": ANSWER, "rejected": "The blue hen."}
    pairs[5] |= {"prompt": SHORT, "chosen": "The blue hen.", "rejected": ANSWER}
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    filters = ReplyFilters(benchmarks=False, languages=(), likeness=0)
    teacher = Teacher(
        model="big/one",
        stand_in="answers",
        prompts=base.corpora["chats"],
        replies=120,
        license="mit",
        filters=filters,
    )
    corpora: dict[str, Any] = {"pairs": PairFiles(paths=(str(folder / "pairs.jsonl"),)), "replies": teacher}
    preferences = tiny.pretraining(
        name="dpo",
        length=320,
        batch_tokens=4 * 320,
        tokens=Tokens(6 * 4 * 320),
        data=PairData(corpus="pairs", reference="reference"),
        stages=(Stage(share=1.0, objective=DPO()),),
    )
    timeline = (
        pretraining,
        replace(release, suite="open-slm"),
        chatml,
        sft,
        replace(sft, name="seqkd", data=ChatData(corpus="replies")),
        ReferenceLogProbabilities(name="reference", corpus="pairs"),
        preferences,
    )
    return replace(base, corpora={**base.corpora, **corpora}, timeline=timeline)


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def prepare(recipe: Recipe, folder: Path, questions: QuestionSource) -> tuple[str, dict[str, Any]]:
    """Write the token files; what was said, and the outputs of conversations, pairs and replies."""
    screen = StringIO()
    data(recipe, folder, Console(file=screen, width=300), asking=Asking(questions=questions))
    return screen.getvalue(), {name: RunFolder(folder).record(f"shards/{name}")["outputs"] for name in CONVERSATIONS}


def counted(outputs: dict[str, Any]) -> int:
    """Items that were encoded, or are too long for a row."""
    kind = "pairs" if "pairs" in outputs["sides"]["train"] else "conversations"
    return sum(side[kind] + sum(side["dropped"].values()) for side in outputs["sides"].values())


def test_conversations_and_pairs_with_items_are_dropped_and_counted_by_task(
    recipe: Recipe, sets: Folder, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    said, outputs = prepare(recipe, folder, sets)
    for name in CONVERSATIONS:
        assert outputs[name]["dropped"] == {ITEMS: 3} and counted(outputs[name]) == 117, name
        assert outputs[name]["decontaminated"] == {"compared": ["arc_easy"], "absent": OTHERS}
        assert f"{name}: dropped: 3 {ITEMS}" in said and f"{name}: compared with arc_easy; absent: arc_chall" in said
        assert [one.number for one in read_samples(folder / "shards" / name)] == [1, 2]
        assert LONG.lower() in read_samples(folder / "shards" / name)[0].text.lower()
        assert all("dropped" not in side or not side["dropped"] for side in outputs[name]["sides"].values()), "not lost"
    facts = {corpus.name: corpus for corpus in data_facts(RunData(folder), None).corpora}
    assert all(facts[name].dropped == {ITEMS: 3} and len(facts[name].samples) == 2 for name in CONVERSATIONS)


def test_a_recipe_that_wants_no_search_leaves_all_in(recipe: Recipe, sets: Folder, tmp_path: Path) -> None:
    off = replace(recipe, decontaminate=False)
    teacher = off.corpora["replies"]
    filtered = {"replies": replace(teacher, filters=replace(teacher.filters, benchmarks=True))}
    _, outputs = prepare(replace(off, corpora={**off.corpora, **filtered}), tmp_path / "off", sets)
    _, unsearched = prepare(recipe, tmp_path / "hub", Hub())
    for name in CONVERSATIONS:
        assert not {"dropped", "decontaminated"} & outputs[name].keys() and counted(outputs[name]) == 120
        assert outputs[name]["index_sha256"] == unsearched[name]["index_sha256"]
        assert unsearched[name]["decontaminated"] == {
            "compared": [],
            "absent": ["arc_challenge", "arc_easy", *OTHERS[1:]],
        }
        record = RunFolder(tmp_path / "hub").record(f"shards/{name}")
        assert "evaluation_sets" not in record["from"], "as before they were searched"


def test_items_over_two_messages_are_found_in_what_was_not_searched_before(
    recipe: Recipe, sets: Folder, tmp_path: Path
) -> None:
    prepare(recipe, tmp_path / "run", Hub())
    (arc,) = data_facts(RunData(tmp_path / "run"), sets).overlaps or ()
    assert (arc.items, arc.overlapped) == (2, 2)


def test_a_filter_of_replies_counts_by_task_too_and_says_what_it_compared(
    recipe: Recipe, sets: Folder, tmp_path: Path
) -> None:
    teacher = recipe.corpora["replies"]
    filtered = {"replies": replace(teacher, filters=replace(teacher.filters, benchmarks=True))}
    with_filter = replace(recipe, corpora={**recipe.corpora, **filtered})
    _, outputs = prepare(with_filter, tmp_path / "run", sets)
    assert outputs["replies"]["dropped"] == {ITEMS: 3}
    assert outputs["replies"]["decontaminated"]["compared"] == ["arc_easy"]


def test_a_run_resumes_with_the_sets_that_it_began_with(recipe: Recipe, sets: Folder, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _, outputs = prepare(recipe, folder, sets)
    before = contents(folder / "shards")
    shutil.rmtree(folder / "shards" / "chats")
    assert prepare(recipe, folder, Hub())[1] == outputs and contents(folder / "shards") == before


def test_conversations_that_were_trained_on_unsearched_stay(recipe: Recipe, sets: Folder, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _, outputs = prepare(recipe, folder, Hub())
    trained = {"tokens": {name: outputs[name]["index_sha256"] for name in CONVERSATIONS}}
    with RunFolder(folder) as run, run.part("phases/09-other", trained) as part:
        part.outputs = {}
    shutil.rmtree(folder / "shards" / "pairs")
    assert prepare(recipe, folder, sets)[1] == outputs, "made again as they were"


def test_where_all_conversations_go_the_error_says_why(recipe: Recipe, sets: Folder, tmp_path: Path) -> None:
    path = tmp_path / "corpus" / "chats.jsonl"
    rows = [{"id": f"c{n}", "messages": [turn("user", f"{n}"), turn("assistant", LONG)]} for n in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(Exception, match=rf"no conversation is left[\s\S]*30 {ITEMS}"):
        prepare(recipe, tmp_path / "run", sets)
