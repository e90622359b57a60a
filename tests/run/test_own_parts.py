"""A run whose recipe file defines parts of its own travels: every command works on it, once its code may run."""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_commands import contents, lilliput, refused, trained, workshop

import lilliput as package
from lilliput.base.files import read_json, sha256, with_checksum, write_json
from lilliput.base.own_code import digest_of
from lilliput.base.run_code import UntrustedCodeError

pytestmark = pytest.mark.slow

LAYERS = """
from dataclasses import dataclass, replace
from typing import Any
import factors

@dataclass(frozen=True, kw_only=True)
class Loud:
    source: Any
    def documents(self):
        for document in self.source.documents():
            yield replace(document, text=document.text.upper())
    def identity(self):
        return self.source.identity()

@dataclass(frozen=True, kw_only=True)
class Half:
    def __call__(self, step, steps):
        return factors.HALF
"""
OWN = """
import layers
loud = {"texts": layers.Loud(source=recipe.corpora["texts"]), "chats": recipe.corpora["chats"]}
phase = replace(recipe.timeline[0], schedule=layers.Half())
recipe = replace(recipe, corpora=loud, timeline=(phase, *recipe.timeline[1:]))
"""
WITH_CODE = ("tokenizer", "data", "train", "publish", "run", "eval")
"""Commands that need all of a recipe."""


@pytest.fixture
def config(tmp_path):
    """The configuration of a person who has allowed nothing yet; commands are told by `at`."""
    return tmp_path / "config"


@dataclass(frozen=True)
class at:
    """Before a command: the person's configuration, and what is typed at a terminal, if somebody sits there."""

    config: Path
    typed: str | None = None

    def __call__(self) -> None:
        os.environ["XDG_CONFIG_HOME"] = str(self.config)
        if self.typed is not None:
            ours, theirs = os.openpty()
            os.write(ours, self.typed.encode())
            sys.stdin, sys.stderr = os.fdopen(theirs), os.fdopen(os.dup(theirs), "w")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A workshop with a finished run, `good`, and a folder elsewhere with a copy of it."""
    folder = workshop(tmp_path_factory.mktemp("shop"))
    (folder / "layers.py").write_text(LAYERS)
    (folder / "factors.py").write_text("HALF = 0.5\n")
    with open(folder / "mine.py", "a") as file:
        file.write(OWN)
    lilliput("run", "mine.py", "--machine", "small.py", "--out", "good", folder=folder)
    return folder


@pytest.fixture
def away(shop, tmp_path):
    """Another folder, where nothing is but a copy of the run."""
    shutil.copytree(shop / "good", tmp_path / "away" / "run")
    return tmp_path / "away"


def test_a_copied_run_works_with_the_flag(shop, away, config):
    before = trained(away / "run")
    for command in (*WITH_CODE, "report", "plan"):
        lilliput(command, "run", "--trust-code", folder=away, before=at(config))
    lilliput("compare", "run", "run:pretrain", "--trust-code", folder=away, before=at(config))
    words = ("--over", "timeline.pretrain.optimizer.lr=1e-3,1e-2", "--out", "swept", "--trust-code")
    lilliput("sweep", "run", *words, folder=away, before=at(config))
    assert trained(away / "run") == before and not (config / "lilliput").exists()
    assert {read_json(one)["recipe"] for one in away.glob("swept/*/code.json")} == {"mine.py"}
    shutil.rmtree(away / "run" / "phases")
    (away / "run" / "parts" / "phases.00-pretrain.json").unlink()
    lilliput("train", "run", "--trust-code", folder=away, before=at(config))
    assert trained(away / "run") == before, "and trains to the same weights"


def test_nothing_of_it_runs_unasked_and_what_needs_none_is_shown(shop, away, config, tmp_path):
    folder = next((away / "run" / "code").iterdir())
    canary = tmp_path / "canary"
    (folder / "layers.py").write_text(f"open({str(canary)!r}, 'w')\n" + LAYERS)
    hashes = read_json(away / "run" / "code.json")["files"]
    hashes["layers.py"] = sha256(folder / "layers.py")
    write_json(away / "run" / "code.json", with_checksum({"recipe": "mine.py", "files": hashes}))
    folder.rename(folder.with_name(digest_of("mine.py", hashes)[:16]))
    before = contents(away)
    for command in (*WITH_CODE, "plan"):
        err = refused(command, "run", folder=away, says="may not run yet", before=at(config))
        assert "layers:Half, layers:Loud" in err and "--trust-code" in err
    assert contents(away) == before
    assert "00 pretrain, 12 steps" in lilliput("plan", "run", folder=away, expected=1, before=at(config)).out
    shutil.copytree(shop / "good", away / "other")
    assert "it leaves out" in lilliput("report", "run", folder=away, before=at(config)).out
    page = (away / "run" / "report.html").read_text()
    assert "12 of 12 steps" in page and "layers:Half, layers:Loud" in page
    told = json.loads(lilliput("compare", "run", "other", "--json", folder=away, before=at(config)).out)
    assert [run["finished"] for run in told["runs"]] == [True, True]
    assert sum("without its own code" in note for note in told["notes"]) == 2
    assert "published" in lilliput("runs", ".", folder=away, before=at(config)).out
    lilliput("clean", "run", "--yes", folder=away, before=at(config))
    assert not canary.exists() and not (config / "lilliput").exists()
    lilliput("report", "run", "--trust-code", folder=away, before=at(config))
    assert canary.exists()


def test_it_is_asked_about_once(shop, away, config):
    for answer in ("n\n", "\n", "\x04"):
        lilliput("data", "run", folder=away, expected=1, before=at(config, answer))
        assert not (config / "lilliput").exists()
    lilliput("data", "run", folder=away, before=at(config, "y\n"))
    assert (config / "lilliput" / "trusted-code.json").stat().st_mode & 0o777 == 0o600
    lilliput("data", "run", folder=away, before=at(config))
    (next((away / "run" / "code").iterdir()) / "extra.py").write_text("")
    refused("data", "run", folder=away, says="did not keep: extra.py", before=at(config))


def test_other_code_is_another_thing_to_be_trained_by(shop, tmp_path, config):
    for name in ("mine.py", "layers.py", "factors.py", "small.py"):
        shutil.copy(shop / name, tmp_path)
    shutil.copytree(shop / "good", tmp_path / "run")
    words = ("mine.py", "--out", "run")
    (tmp_path / "mine.py").write_text("# a comment\n" + (tmp_path / "mine.py").read_text())
    lilliput("publish", *words, folder=tmp_path)
    assert len(list((tmp_path / "run" / "code").iterdir())) == 2, "the new files are noted, and nothing else changes"
    before = contents(tmp_path / "run")
    (tmp_path / "factors.py").write_text("HALF = 0.25\n")
    for command in ("data", "train", "publish"):
        err = refused(command, *words, folder=tmp_path, says="phases/00-pretrain was trained with other code")
        assert "code.layers:Half was" in err and "--allow-change" in err
    assert contents(tmp_path / "run") == before
    lilliput("train", *words, "--allow-change", folder=tmp_path)
    assert trained(tmp_path / "run") == trained(shop / "good"), "what is trained stays"
    (change,) = read_json(tmp_path / "run" / "run.json")["changes"]
    assert change["phase"] == "phases/00-pretrain" and "layers:Half" in change["changed"][0]
    lilliput("publish", *words, folder=tmp_path)
    refused("publish", "run", folder=tmp_path, says="may not run yet", before=at(config))
    lilliput("publish", "run", "--trust-code", folder=tmp_path, before=at(config))
    lilliput("run", "mine.py", "--machine", "small.py", "--out", "fresh", folder=tmp_path)
    assert trained(tmp_path / "fresh") != trained(shop / "good")
    told = lilliput("compare", "run", "fresh", "--json", "--trust-code", folder=tmp_path, before=at(config)).out
    assert not any("without its own code" in note for note in json.loads(told)["notes"])


def test_other_code_of_a_corpus_is_another_text(shop, tmp_path):
    for name in ("mine.py", "layers.py", "factors.py"):
        shutil.copy(shop / name, tmp_path)
    lilliput("data", "mine.py", "--out", "run", folder=tmp_path)
    index = contents(tmp_path / "run" / "shards" / "texts")
    lilliput("data", "mine.py", "--out", "run", folder=tmp_path)
    assert contents(tmp_path / "run" / "shards" / "texts") == index
    (tmp_path / "layers.py").write_text(LAYERS.replace("upper", "title"))
    lilliput("data", "mine.py", "--out", "run", folder=tmp_path)
    assert contents(tmp_path / "run" / "shards" / "texts") != index


def test_in_python_it_is_allowed_by_an_argument(shop, away, config, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    monkeypatch.chdir(away)
    with pytest.raises(UntrustedCodeError):
        package.train_recipe("run", quiet=True)
    made = package.train_recipe("run", quiet=True, trust_code=True)
    assert made.recipe.timeline[0].schedule(0, 1) == 0.5
