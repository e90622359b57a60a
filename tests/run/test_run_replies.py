"""A run asks its teachers: once for each prompt, whatever ends it; filters and cards read what it keeps."""

import json
import re
import signal
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_checkpoints
import tiny_commands
import tiny_questions
import tiny_teacher
from rich.console import Console
from tiny_teacher import KEY, TinyTeacher

from lilliput.base.errors import DataError, LilliputError, RunError
from lilliput.base.files import read_json
from lilliput.base.ownership import foreign
from lilliput.base.run_folder import RunFolder
from lilliput.base.units import Tokens
from lilliput.data.chat_rows import ChatData
from lilliput.data.corpora.teacher import Teacher
from lilliput.data.replies import endpoint
from lilliput.data.replies.reply import reply_of
from lilliput.data.replies.reply_file import ReplyFile
from lilliput.data.replies.reply_filters import ReplyFilters
from lilliput.evals.question_files import Folder
from lilliput.recipe import Recipe
from lilliput.report.replies_page import judged, write_replies_page
from lilliput.run.asking import KEY as KEY_NAME
from lilliput.run.asking import URL, Asking, answering, price_of
from lilliput.run.before_training import replies
from lilliput.run.listing import remove, since
from lilliput.run.pipeline import run, train
from lilliput.sweep.shared_data import link_prepared
from lilliput.train.machine import Machine

CPU = Machine(device="cpu", precision="fp32", threads=1)
PROMPTS = 24


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.01)
    monkeypatch.setenv(KEY_NAME, KEY)
    monkeypatch.delenv(URL, raising=False)


def distilled(folder: Path, **teacher: Any) -> Recipe:
    """The tiny recipe, whose last phase learns replies."""
    recipe = tiny.recipe(folder, tiny.GQA_SPEC)
    *before, tokens, sft, release = recipe.timeline
    asked = Teacher(model="big/one", prompts=recipe.corpora["chats"], replies=PROMPTS, license="mit", **teacher)
    seqkd = replace(sft, name="seqkd", data=ChatData(corpus="replies"), tokens=Tokens(3 * 4 * 128))
    return replace(
        recipe, corpora={**recipe.corpora, "replies": asked}, timeline=(*before, tokens, sft, seqkd, release)
    )


def ask(recipe: Recipe, folder: Path, **asking: Any) -> tuple[Any, str]:
    screen = StringIO()
    found = replies(recipe, folder, Console(file=screen, width=300), asking=Asking(**asking))
    return found["replies"], screen.getvalue()


def rows(folder: Path) -> list[dict[str, Any]]:
    """Replies of a run in the order of their prompts, without what a clock says."""
    lines = (folder / "replies/replies/replies.jsonl").read_text().splitlines(keepends=True)
    plain = [json.loads(line) for line in lines if reply_of(line)]
    return [
        {key: value for key, value in row.items() if key not in ("seconds", "at", "host")}
        for row in sorted(plain, key=lambda row: row["number"])
    ]


def taught() -> str:
    """A recipe file with the recipe of these tests."""
    return (
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom pathlib import Path\n"
        "import test_run_replies\nrecipe = test_run_replies.distilled(Path('scratch').resolve())\n"
    )


def test_a_run_asks_each_prompt_once_and_says_what_it_costs(tmp_path: Path) -> None:
    recipe = distilled(tmp_path)
    with TinyTeacher() as teacher:
        found, said = ask(recipe, tmp_path / "run", endpoint=teacher.url, price=price_of("1000,2000"))
        assert set(teacher.answered.values()) == {1} and len(teacher.answered) == PROMPTS
        again, _ = ask(recipe, tmp_path / "run", endpoint=teacher.url)
        assert teacher.asked.total() == PROMPTS, "what is there is not asked for again"
    assert "24 prompts for big/one: about" in said and "at most 24.6 k to write, at most" in said
    assert re.search(r"16 of 24 replies, \d+ tokens each, [\d,]+ tokens/s, .* left, \d+\.\d\d in all", said)
    assert found.sha256 == again.sha256 and len(list(found.iterate())) == PROMPTS
    for path in (tmp_path / "run").rglob("*"):
        assert path.is_dir() or KEY not in path.read_text(errors="replace"), path
    assert not foreign(tmp_path / "run", "replies")


def test_a_run_needs_no_teacher_once_it_has_replies_and_trains_on_them(tmp_path: Path) -> None:
    recipe, folder = distilled(tmp_path, stand_in="other"), tmp_path / "run"
    with TinyTeacher() as teacher:
        ask(recipe, folder, endpoint=teacher.url)
    screen = StringIO()
    (release,) = run(recipe, folder, CPU, Console(file=screen, width=300))[1:]
    card = (release / "README.md").read_text()
    assert "was read in the place of replies of big/one" in card and "replies of other to prompts" in card
    assert "mit" not in re.findall(r"`replies` (\S+?)[,.]", card), "the teacher's license is not the stand-in's"
    assert "24 replies of other-as-served, in the place of big/one" in screen.getvalue()
    weights = tiny_commands.trained(folder)
    (folder / "replies/replies/replies.jsonl").unlink()
    assert run(recipe, folder, CPU, Console(quiet=True)) and tiny_commands.trained(folder) == weights


def test_another_teacher_is_refused_and_other_filters_ask_for_nothing(tmp_path: Path) -> None:
    recipe, folder = distilled(tmp_path), tmp_path / "run"
    with TinyTeacher(lambda prompt, attempt: "cut" if "3" in prompt else "ok") as teacher:
        found, _ = ask(recipe, folder, endpoint=teacher.url)
        before = judged("replies", found).counts
        asked = replace(recipe.corpora["replies"], filters=ReplyFilters(likeness=0.0, languages=("de",)))
        other, _ = ask(replace(recipe, corpora={**recipe.corpora, "replies": asked}), folder, endpoint=teacher.url)
        assert teacher.asked.total() == PROMPTS and other.sha256 == found.sha256
        assert before["cut off"] == judged("replies", other).counts["cut off"] == 3
        assert judged("replies", other).counts["another language"] == PROMPTS - 3
        with pytest.raises(RunError, match="teacher.temperature was 0.0, not 1.0"):
            warmer = replace(recipe.corpora["replies"], temperature=1.0)
            ask(replace(recipe, corpora={**recipe.corpora, "replies": warmer}), folder, endpoint=teacher.url)


def test_a_teacher_that_dies_is_asked_for_the_rest_when_it_is_back(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("lilliput.data.replies.asking.ATTEMPTS", 2)
    recipe, folder = distilled(tmp_path), tmp_path / "run"
    left = {"ok": 9}

    def dying(prompt: str, attempt: int) -> str:
        left["ok"] -= 1
        return "ok" if left["ok"] >= 0 else "close"

    with TinyTeacher(dying) as first, pytest.raises(DataError, match="does not answer"):
        ask(recipe, folder, endpoint=first.url, concurrency=1)
    assert first.answered.total() == 9
    with TinyTeacher() as second:
        _, said = ask(recipe, folder, endpoint=second.url)
    assert (first.answered + second.answered).most_common(1)[0][1] == 1 and "9 replies are there" in said
    assert len(first.answered + second.answered) == PROMPTS == len(rows(folder))


@pytest.mark.slow
def test_a_killed_command_asks_for_what_is_missing_and_for_nothing_twice(tmp_path: Path) -> None:
    """Of what was asked and had not come when the process was killed, nobody can know."""
    folder = tiny_commands.workshop(tmp_path / "shop")
    (folder / "taught.py").write_text(taught())
    command = ("replies", "taught.py", "--concurrency", "2", "--endpoint")

    def behavior(prompt: str, attempt: int) -> str:
        return "slow" if attempt > 1 or int(re.findall(r"\d+", prompt)[0]) % 4 else "500"

    with TinyTeacher(behavior) as teacher:
        lines = folder / "runs/tiny/replies/replies/replies.jsonl"
        paid: dict[str, int] = {}
        for count in (3, 9):
            running = tiny_commands.Running(*command, teacher.url, folder=folder)
            running.wait_for(lines, count)
            running.process.kill()
            assert running.end().code == 137
            whole = lines.read_bytes().splitlines(keepends=True)
            kept = {json.loads(line)["prompt"][-1][1] for line in whole if line.endswith(b"\n")}
            paid |= {prompt: teacher.answered[prompt] for prompt in kept}
        tiny_commands.lilliput(*command, teacher.url, folder=folder)
        assert len(paid) >= 9 and all(teacher.answered[prompt] == count for prompt, count in paid.items())
        assert teacher.answered.total() <= PROMPTS + 2 * 2 and len(teacher.answered) == PROMPTS
    with TinyTeacher() as teacher:
        tiny_commands.lilliput(*command, teacher.url, "--out", "other", folder=folder)
    assert rows(folder / "other") == rows(folder / "runs/tiny")


def test_replies_that_give_a_benchmark_away_are_dropped_as_soon_as_it_can_be_had(tmp_path: Path) -> None:
    recipe, folder = distilled(tmp_path), tmp_path / "run"
    row = next(row for row in tiny_questions.local_rows("hellaswag.validation") if len(row["ctx_a"].split()) > 7)
    given = " ".join([row["ctx_a"], row["ctx_b"], row["endings"][int(row["label"])]])

    def reply(prompt: str) -> str:
        return f"It goes: {given}" if "many 13" in prompt or " 7?" in prompt else tiny_teacher.reply_to(prompt)

    with TinyTeacher(reply=reply) as teacher:
        found, said = ask(recipe, folder, endpoint=teacher.url)
    assert "compared with no evaluation set" in said and not found.overlaps
    sets = tiny_questions.write_folder(tmp_path / "sets")
    found, said = ask(recipe, folder, questions=Folder(sets))
    assert "hellaswag" in said and [*found.overlaps.values()] == [["hellaswag"]]
    assert judged("replies", found).counts["benchmark overlap"] == 1
    kept, said = ask(recipe, folder)
    assert kept.identity() == found.identity(), "what was compared stays compared"


def test_the_page_shows_replies_by_reason_and_obeys_none(tmp_path: Path) -> None:
    recipe, folder = distilled(tmp_path), tmp_path / "run"
    with TinyTeacher(reply=lambda prompt: f"<script>alert(1)</script> I am not sure what to say: {prompt}") as teacher:
        found, _ = ask(recipe, folder, endpoint=teacher.url)
    page = write_replies_page([judged("replies", found)], folder).read_text()
    assert (
        page.count("<script>") == 1 and "&lt;script&gt;alert(1)" in page and "http" not in page.replace(teacher.url, "")
    )
    assert "big/one-as-served at 127.0.0.1" in page and page.count("<article>") == PROMPTS
    assert not foreign(folder, "replies.html")


def test_a_model_in_a_folder_teaches_and_any_way_to_none_is_named(tmp_path: Path) -> None:
    first = tiny.recipe(tmp_path, tiny.GQA_SPEC)
    releases = run(first, tmp_path / "first", CPU, Console(quiet=True))
    recipe = distilled(tmp_path, stand_in=str(releases[1]), max_tokens=12)
    _, said = ask(recipe, tmp_path / "run", device="cpu")
    given = rows(tmp_path / "run")
    assert len(given) == PROMPTS and {row["finish"] for row in given} <= {"stop", "length"}
    assert all(row["teacher"].startswith("tiny-instruct@") and row["completion_tokens"] <= 12 for row in given)
    ask(recipe, tmp_path / "again", device="cpu")
    assert rows(tmp_path / "again") == given and "in the place of big/one" in said
    llama = tmp_path / "llama"
    tiny_checkpoints.save_checkpoint(llama, "llama")
    (llama / "chat_template.jinja").write_text(tiny_checkpoints.TEMPLATE)
    ask(distilled(tmp_path, stand_in=str(llama), max_tokens=8), tmp_path / "other", device="cpu")
    assert {row["teacher"].partition("@")[0] for row in rows(tmp_path / "other")} == {"llama"}
    with pytest.raises(RunError, match="no chat template"):
        ask(distilled(tmp_path, stand_in=str(releases[0])), tmp_path / "base", device="cpu")
    with pytest.raises(DataError, match="is not here") as error:
        train(distilled(tmp_path), tmp_path / "none", CPU, Console(quiet=True))
    assert "--endpoint" in error.value.hint and "stand_in" in error.value.hint
    train(distilled(tmp_path), tmp_path / "none", CPU, Console(quiet=True), until="pretrain")


def test_means_to_ask_come_from_options_and_the_environment(tmp_path: Path) -> None:
    teacher = distilled(tmp_path).corpora["replies"]
    asked: Any = answering(teacher, Asking(), {URL: "http://env/v1", KEY_NAME: "k"})
    assert (asked.endpoint.url, asked.endpoint.key, asked.endpoint.model) == ("http://env/v1", "k", "big/one")
    asked = answering(teacher, Asking(endpoint="http://own/v1", concurrency=3), {URL: "http://env/v1"})
    assert (asked.endpoint.url, asked.endpoint.key, asked.concurrency) == ("http://own/v1", None, 3)
    assert price_of(None) is None and price_of("0.1,0.4") == (0.1, 0.4)
    for wrong in ("1", "a,b", "1,2,3"):
        with pytest.raises(LilliputError, match="not two prices"):
            price_of(wrong)
    with pytest.raises(LilliputError):
        Asking(concurrency=0)


def test_the_record_of_a_part_says_who_answered(tmp_path: Path) -> None:
    with TinyTeacher() as teacher:
        ask(distilled(tmp_path), tmp_path / "run", endpoint=teacher.url)
    outputs = read_json(tmp_path / "run/parts/replies.replies.json")["outputs"]
    assert outputs["teachers"] == {"big/one-as-served": PROMPTS} and outputs["hosts"] == [f"127.0.0.1:{teacher.port}"]
    assert outputs["replies"] == PROMPTS and outputs["failed"] == 0 and outputs["completion_tokens"] > PROMPTS


def test_replies_of_which_none_is_kept_are_told_of_before_training(tmp_path: Path) -> None:
    with TinyTeacher(lambda prompt, attempt: "cut") as teacher, pytest.raises(DataError, match="24 cut off") as error:
        train(distilled(tmp_path), tmp_path / "run", CPU, Console(quiet=True), asking=Asking(endpoint=teacher.url))
    assert "lilliput replies" in error.value.hint and not (tmp_path / "run/phases").exists()
    kept = distilled(tmp_path, filters=ReplyFilters(cut_off=False))
    train(kept, tmp_path / "run", CPU, Console(quiet=True))
    assert teacher.asked.total() == PROMPTS, "filters that changed ask for nothing"


def test_replies_are_given_up_by_their_name_alone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with TinyTeacher() as teacher:
        train(distilled(tmp_path), folder, CPU, Console(quiet=True), until="seqkd", asking=Asking(endpoint=teacher.url))
    tokenizer = {one.name for one in since(folder, "tokenizer")}
    assert "replies/replies" not in tokenizer and {"shards/replies", "phases/00-pretrain"} <= tokenizer
    every = since(folder, "replies/replies")
    assert {"replies/replies", *tokenizer} == {one.name for one in every}
    remove(folder, every)
    assert not list((folder / "replies").iterdir())


def test_variants_of_a_sweep_share_what_was_replied(tmp_path: Path) -> None:
    recipe = distilled(tmp_path)
    with TinyTeacher() as teacher:
        ask(recipe, tmp_path / "one", endpoint=teacher.url)
    with RunFolder(tmp_path / "two") as two:
        link_prepared(two, recipe, [(tmp_path / "one", recipe)])
    ask(recipe, tmp_path / "two")
    assert teacher.asked.total() == PROMPTS and len(rows(tmp_path / "two")) == PROMPTS
    first = (tmp_path / "one/replies/replies/replies.jsonl").read_bytes()
    with ReplyFile(tmp_path / "two/replies/replies/replies.jsonl") as file:
        file.append([reply_of(first.splitlines()[0].decode())])
    assert (tmp_path / "one/replies/replies/replies.jsonl").read_bytes() == first, "nobody else's file changes"


def test_more_replies_are_asked_for_without_those_that_are_there(tmp_path: Path) -> None:
    recipe, folder = distilled(tmp_path), tmp_path / "run"
    counts = []
    with TinyTeacher() as teacher:
        for count in (5, PROMPTS, 7):
            asked = replace(recipe.corpora["replies"], replies=count)
            found, _ = ask(replace(recipe, corpora={**recipe.corpora, "replies": asked}), folder, endpoint=teacher.url)
            counts.append((teacher.asked.total(), len(list(found.iterate()))))
    assert counts == [(5, 5), (PROMPTS, PROMPTS), (PROMPTS, 7)]


@pytest.mark.slow
def test_an_interrupted_command_keeps_what_it_has_asked(tmp_path: Path) -> None:
    folder = tiny_commands.workshop(tmp_path / "shop")
    (folder / "taught.py").write_text(taught())
    with TinyTeacher(lambda prompt, attempt: "slow") as teacher:
        command = ("replies", "taught.py", "--concurrency", "3", "--endpoint", teacher.url)
        running = tiny_commands.Running(*command, folder=folder)
        running.wait_for(folder / "runs/tiny/replies/replies/replies.jsonl", 4)
        running.signal(signal.SIGINT)
        ended = running.end()
        assert ended.code == 130 and "the same command resumes it" in ended.out
        assert len(rows(folder / "runs/tiny")) == teacher.answered.total() < PROMPTS
        tiny_commands.lilliput(*command, folder=folder)
    assert set(teacher.answered.values()) == {1} and len(rows(folder / "runs/tiny")) == PROMPTS
