"""Entries of a timeline: everyone asks them, and a new kind is one class with one step."""

from dataclasses import dataclass, replace
from io import StringIO
from typing import ClassVar

import pytest
import tiny
from rich.console import Console

from lilliput.base.errors import RecipeError
from lilliput.base.units import Tokens
from lilliput.entry import TimelineEntry
from lilliput.growth.add_tokens import AddTokens
from lilliput.growth.growth import Growth
from lilliput.plan.count import plan
from lilliput.report.records import read_run
from lilliput.run import pipeline, runner
from lilliput.sweep.metric import choose
from lilliput.sweep.shared_data import text_of
from lilliput.train.machine import Machine

MACHINE = Machine(device="cpu", precision="fp32", threads=1)


@dataclass(frozen=True, kw_only=True)
class Note(TimelineEntry):
    """An entry of a kind that nobody has heard of."""

    kind: ClassVar[str] = "note"
    text: str

    def reads(self):
        return ("chats",)

    def describe(self):
        return f"a note, {self.text}"


def noted(folder, *after):
    recipe = tiny.recipe(folder)
    phase = tiny.pretraining(length=128, batch_tokens=4 * 128, tokens=Tokens(4 * 4 * 128))
    return replace(recipe, timeline=(AddTokens(tokens=tiny.CHATML), Note(text="hello"), phase, *after))


def test_everyone_asks_an_entry_of_a_new_kind(tmp_path, monkeypatch):
    recipe, seen = noted(tmp_path / "data"), []
    assert plan(recipe, MACHINE)["others"] == [
        {"index": 1, "name": "Note", "kind": "note", "what": "a note, hello", "reads": ["chats"]}
    ]
    assert [corpus["name"] for corpus in plan(recipe, MACHINE)["corpora"]] == ["texts", "chats"]
    assert "chats" in recipe.until("pretrain").corpora and choose(recipe, None).name == "pretrain.texts"
    other = replace(recipe, timeline=recipe.timeline[2:])
    assert text_of(recipe) != text_of(other)

    def checked(part, steps):
        steps["note"] = lambda index, entry, reached: seen.append((index, entry.text)) or reached

    monkeypatch.setattr(runner, "check_steps", checked)
    pipeline.train(recipe, tmp_path / "run", MACHINE, Console(file=StringIO()))
    assert seen == [(1, "hello")] and (tmp_path / "run" / "shards" / "chats").is_dir()
    assert [phase.name for phase in read_run(tmp_path / "run").phases] == ["pretrain"]


def test_a_kind_without_a_step_is_refused_before_anything_is_done(tmp_path):
    with pytest.raises(RecipeError, match=r"'note', which nothing carries out[\s\S]*timeline\.1[\s\S]*one of: phase"):
        pipeline.train(noted(tmp_path / "data"), tmp_path / "run", MACHINE, Console(file=StringIO()))
    assert not (tmp_path / "run" / "tokenizer").exists()


def test_a_growth_says_nothing_of_what_it_leaves_alone(tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class Same(Growth):
        def grow(self, lineage, seed):
            return lineage

    same, recipe = Same(), tiny.recipe(tmp_path)
    assert same.shape(recipe.model) == recipe.model and same.reads() == () and same.describe() == "Same"
    replace(recipe, timeline=(tiny.pretraining(), same))

    @dataclass(frozen=True, kw_only=True)
    class Alone:
        def grow(self, lineage, seed):
            return lineage

    with pytest.raises(
        RecipeError,
        match=r"Alone has no describe, keeps_optimizer, kind, needs, part[\s\S]*what Growth in lilliput/growth",
    ):
        replace(recipe, timeline=(tiny.pretraining(), Alone()))
