"""The command that a card prints makes the model again, wherever it is typed."""

import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from card_records import record_of
from tiny_commands import lilliput, workshop

from lilliput.base.field_overrides import override
from lilliput.base.files import read_json, sha256
from lilliput.base.run_folder import RunFolder
from lilliput.base.spec import from_plain, to_plain
from lilliput.publish.card.card import card
from lilliput.publish.card.record import Part
from lilliput.publish.card.reproduce import reproduce_command
from lilliput.run.command_record import Command, RecipeOptions, read_command

WEIGHTS = "releases/tiny-base/model.safetensors"


def shown(run: Path) -> list[str]:
    """The words of the command on the card of a run's base release."""
    card = (run / "releases" / "tiny-base" / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^```sh\n(.+)\n```$", card.partition("## Make it again")[2], flags=re.M)
    assert found, card[-900:]
    return shlex.split(found.group(1))


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A workshop with a folder of plain texts, and a run of it, small, changed, and published twice."""
    folder = workshop(tmp_path_factory.mktemp("shop"))
    (folder / "plain").mkdir()
    for number in range(150):
        (folder / "plain" / f"{number:03d}.txt").write_text(tiny.sentences(number))
    sources = ("--source", f"texts={folder / 'plain'}", "--source", f"texts={folder / 'texts' / 'a.jsonl'}")
    settings = ("tokenizer.vocab=300", "model.vocab=300", "seed=3", "timeline.pretrain.optimizer.lr=2e-2")
    changes = [word for setting in settings for word in ("--set", setting)]
    lilliput("train", "mine.py", "--shrink", *changes, *sources, "--out", "run", "--machine", "small.py", folder=folder)
    lilliput("publish", "run", "--set", "timeline.tiny-base.dtype=F32", "--set", "seed=3", folder=folder)
    return folder


@pytest.mark.slow
def test_the_command_on_a_card_makes_the_same_weights_in_another_place(shop, tmp_path):
    words = shown(shop / "run")
    assert words[:4] == ["lilliput", "run", "mine.py", "--shrink"]
    for name in ("mine.py", "small.py", "texts/a.jsonl"):
        shutil.copy(shop / name, tmp_path)
    shutil.copytree(shop / "plain", tmp_path / "plain")
    lilliput(*words[1:], folder=tmp_path)
    run = tmp_path / "runs" / "tiny-shrunk"
    assert sha256(run / WEIGHTS) == sha256(shop / "run" / WEIGHTS)
    assert shown(run) == words, "and the new card says the same"


@pytest.mark.slow
def test_every_option_is_on_the_card_and_no_folder_of_this_machine(shop):
    words = shown(shop / "run")
    said = [" ".join(words[start : start + 2]) for start in range(4, len(words), 2)]
    assert said == [
        "--set tokenizer.vocab=300",
        "--set model.vocab=300",
        "--set timeline.pretrain.optimizer.lr=2e-2",
        "--set timeline.tiny-base.dtype=F32",
        "--set seed=3",
        "--source texts=plain",
        "--source texts=a.jsonl",
        "--machine small.py",
    ]
    text = (shop / "run" / "releases" / "tiny-base" / "README.md").read_text(encoding="utf-8")
    assert "`mine.py` is a recipe of its own" in text and "without the folders" in text
    assert str(shop.parent) not in text


@pytest.mark.slow
def test_a_run_that_no_command_made_says_so(shop):
    """As after a change in Python: the noted command is that of another recipe."""
    run = RunFolder(shop / "run")
    recipe = from_plain(read_json(shop / "run" / "recipe.json"))
    noted = read_command(run, recipe)
    assert noted is not None and noted.machine == "small.py", "of the command that began to train"
    assert read_command(run, replace(recipe, seed=4)) is None
    assert "no single command is known" in card(record_of(chat=False) | {"command": None})


def test_later_options_say_the_last_word():
    command = Command(recipe="quickstart", overrides=("seed=1", "timeline.pretrain.clip=0.5"))
    later = override(command.make(), "seed", "2")
    longer = command.extended_with(RecipeOptions(overrides=("seed=2",)), later)
    assert longer is not None and longer.overrides == ("timeline.pretrain.clip=0.5", "seed=2")
    assert command.extended_with(RecipeOptions(), later) is None, "a recipe that it does not make"
    noted = Command(recipe="gone.py", overrides=("seed=1",))
    assert noted.extended_with(RecipeOptions(overrides=("seed=2",)), later) == Command(
        recipe="gone.py", overrides=("seed=2",)
    ), "it is not read"
    assert noted.extended_with(RecipeOptions(shrink=True), later) is None, "nor is there a way to tell without it"
    shrunk = command.extended_with(RecipeOptions(shrink=True), Command(recipe="quickstart", shrink=True).make())
    assert shrunk is None, "shrinking after --set is not shrinking before it"


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["a=texts/*.jsonl", "b=../b.txt"], ["a=texts/*.jsonl", "b=../b.txt"]),
        (["a=/home/me/texts", "b=~/b.txt"], ["a=texts", "b=b.txt"]),
        (["a=/home/me/one/part.jsonl", "b=/home/me/two/part.jsonl"], ["a=one/part.jsonl", "b=two/part.jsonl"]),
        (["a=/home/me/**/*.jsonl", "b=/home/me/x/"], ["a=**/*.jsonl", "b=x"]),
        (["a=/home/me/x", "b=/home/me/x"], ["a=x", "b=x"]),
    ],
)
def test_paths_are_as_short_as_tells_them_apart(sources, expected):
    found = reproduce_command(Part(to_plain(Command(recipe="quickstart", sources=tuple(sources)))))
    assert found is not None and found["recipe"] is None
    assert shlex.split(found["line"])[4::2] == expected and found["shortened"] == (sources != expected)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("corpora.replies.stand_in=/home/me/models/teacher", "corpora.replies.stand_in=teacher"),
        (
            "corpora.prompts=ChatFiles(paths=('/a/b.jsonl', 'c.jsonl'))",
            "corpora.prompts=ChatFiles(paths=('b.jsonl', 'c.jsonl'))",
        ),
        ("corpora.replies.stand_in=models/teacher", "corpora.replies.stand_in=models/teacher"),
    ],
)
def test_a_reproduced_command_sets_no_path_of_one_machine(given, shown):
    found = reproduce_command(Part(to_plain(Command(recipe="quickstart", overrides=(given,)))))
    assert found is not None
    assert shlex.split(found["line"])[4] == shown and found["shortened"] == (shown != given)
