"""`lilliput start` as people type it: with options alone, and answering its questions."""

import json
import signal
import time

import pytest
import tiny
from tiny_commands import Running, contents, lilliput, refused
from typer.testing import CliRunner

from lilliput.cli import app
from lilliput.cli import start as command
from lilliput.recipe import load_recipe


@pytest.fixture
def desk(tmp_path, monkeypatch):
    tiny.write_corpora(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


BASE = ("start", "--purpose", "base", "--texts", "texts.jsonl", "--minutes", "3", "--device", "cpu")


@pytest.mark.slow
def test_options_alone_make_a_recipe_and_the_command_that_it_says_works(desk):
    said = lilliput(*BASE, "--out", "deep/mine", folder=desk).out
    assert "tokens a parameter" in said and "lilliput run deep/mine/recipe.py --machine deep/mine/machine.py" in said
    assert sorted(path.name for path in (desk / "deep").rglob("*")) == ["machine.py", "mine", "recipe.py"]
    lilliput(
        *"train deep/mine/recipe.py --machine deep/mine/machine.py --shrink --source texts=texts.jsonl".split(),
        folder=desk,
    )
    refused(*BASE, "--out", "deep/mine", folder=desk, says="already exists", where="--out deep/mine")


@pytest.mark.slow
def test_json_is_all_that_is_said(desk):
    said = json.loads(lilliput(*BASE, "--json", folder=desk).out)
    assert said["files"] == ["my-model/recipe.py", "my-model/machine.py"] and said["next"].startswith("lilliput run ")
    assert said["plan"]["totals"]["cost"]["seconds"] < 180 and said["notes"]
    assert load_recipe("my-model/recipe.py").name == "my-model"


@pytest.mark.slow
def test_questions_are_asked_again_until_they_are_answered(desk, monkeypatch):
    monkeypatch.setattr(command, "_is_watched", lambda: True)
    typed = ["7", "2", "nowhere", "texts.jsonl", "soon", "2", "texts.jsonl", "", ""]
    made = CliRunner().invoke(app, ["start"], input="\n".join(typed))
    assert made.exit_code == 0, made.output
    for said in ("'7' is not one of the choices", "nowhere", "'soon' is not a number", "already exists", "(my-model)"):
        assert said in made.output.replace("[", "(").replace("]", ")"), said
    assert "lilliput run my-model/recipe.py" in made.output and load_recipe("my-model/recipe.py")


def test_without_a_terminal_missing_options_are_named(desk):
    before = contents(desk)
    refused("start", folder=desk, says="--purpose and --minutes missing", where="lilliput start")
    refused(
        "start", "--purpose", "assistant", "--texts", "texts.jsonl", folder=desk, says="--minutes and --chats missing"
    )
    refused("start", "--purpose", "bases", "--minutes", "3", folder=desk, says="nearest names: base", where="--purpose")
    assert contents(desk) == before


@pytest.mark.parametrize(
    "options, says, where",
    [
        (("try", "--texts", "texts.jsonl"), "--texts has no effect", "--texts texts.jsonl"),
        (("base", "--texts", "nowhere"), "nowhere", "--texts nowhere"),
        (("base", "--texts", "chats.jsonl"), "'text'", "chats.jsonl"),
        (("assistant", "--texts", "texts.jsonl", "--chats", "texts.jsonl"), "", "texts.jsonl"),
        (("try", "--out", "texts.jsonl"), "already exists", "--out texts.jsonl"),
        (("try", "--out", "-x"), "cannot be named", "--out -x"),
        (("try", "--out", "."), "cannot be named", "--out ."),
        (("try", "--device", "cuda:99"), "no device", "`device`"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_measured(desk, options, says, where):
    before = contents(desk)
    refused("start", "--minutes", "3", "--purpose", *options, folder=desk, says=says, where=where)
    assert contents(desk) == before


def _asleep(*_):
    print("asleep", flush=True)
    time.sleep(60)


def _with_a_probe_that_sleeps():
    from lilliput.start import project

    project.probe = _asleep


def test_an_interruption_leaves_nothing(desk):
    before = contents(desk)
    running = Running(*BASE, "--json", folder=desk, before=_with_a_probe_that_sleeps)
    while "asleep" not in running.said():
        assert running.process.is_alive()
        time.sleep(0.05)
    running.signal(signal.SIGINT)
    assert running.end().code == 130
    assert contents(desk) == before and not (desk / "my-model").exists()
