"""What corpora hold: decided in one place, and a third format needs nothing but its own class."""

from dataclasses import dataclass, replace
from io import StringIO

import pytest
import tiny
from foreign_format import PairData, Pairs
from rich.console import Console

from lilliput.base.errors import DataError, RecipeError
from lilliput.base.files import read_json
from lilliput.base.spec import from_plain, to_plain
from lilliput.base.units import Tokens
from lilliput.data.chat_format import CHATS
from lilliput.data.formats import format_of
from lilliput.data.text_format import TEXT
from lilliput.overrides import replace_sources
from lilliput.plan.count import plan
from lilliput.report.page import write_report
from lilliput.report.records import read_run
from lilliput.run import pipeline
from lilliput.sweep.metric import choose
from lilliput.train.machine import Machine
from lilliput.train.metrics_file import measured_of, read_metrics

MACHINE = Machine(device="cpu", precision="fp32", threads=1)
LENGTH = 128


def with_pairs(folder):
    base = tiny.recipe(folder)
    phase = tiny.pretraining(
        name="pairs",
        length=LENGTH,
        batch_tokens=4 * LENGTH,
        tokens=Tokens(6 * 4 * LENGTH),
        data=PairData(corpus="pairs"),
    )
    return replace(base, corpora={**base.corpora, "pairs": Pairs(count=40)}, timeline=(tiny.pretraining(), phase))


def test_a_method_decides_where_a_corpus_names_no_format(tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class Mine:
        def documents(self):
            return iter(())

    recipe = tiny.recipe(tmp_path)
    assert [format_of(corpus) for corpus in recipe.corpora.values()] == [TEXT, CHATS]
    assert format_of(Mine()) is TEXT and format_of(Pairs(count=1)) is Pairs.format
    with pytest.raises(RecipeError, match=r"documents, conversations nor pairs[\s\S]*the corpus 'odd' of recipe"):
        replace(recipe, corpora={**recipe.corpora, "odd": 3})


def test_a_third_format_is_planned_tokenized_trained_and_reported(tmp_path):
    recipe, run = with_pairs(tmp_path / "data"), tmp_path / "run"
    assert from_plain(to_plain(recipe)) == recipe
    assert choose(recipe, "pairs.pairs").unit == "nats per good token"
    out = StringIO()
    pipeline.train(recipe, run, MACHINE, Console(file=out, width=200))
    said = out.getvalue()
    assert "held-out pairs in nats per good token, lower is better" in said and "whole rows" in said
    held = measured_of(read_metrics(run / "phases/01-pairs/metrics.jsonl"))[-1]["heldout"]
    assert 0 < held["pairs"] < 6
    assert read_json(run / "parts/shards.pairs.json")["outputs"]["unit"] == "nats per good token"
    assert (
        read_run(run).units["pairs"] == "nats per good token" and "nats per good token" in write_report(run).read_text()
    )
    (corpus,) = (each for each in plan(recipe, MACHINE, folder=run)["corpora"] if each["name"] == "pairs")
    rows = read_json(run / "parts/shards.pairs.json")["outputs"]["sides"]["train"]["rows"]
    assert corpus["passes"] == 6 * 4 * LENGTH / (rows * (LENGTH + 1))


def test_files_of_a_third_format_are_refused_in_three_parts(tmp_path):
    recipe = with_pairs(tmp_path / "data")
    with pytest.raises(DataError, match=r"a corpus of pairs is not read from files[\s\S]*change the recipe"):
        replace_sources(recipe, {"pairs": (str(tmp_path / "data" / "texts.jsonl"),)})
