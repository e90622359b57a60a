"""Duplicates on the data page of a run: those planted in a corpus, between corpora and on both sides are counted."""

import io
import json
import random
from dataclasses import replace

import browser
import matplotlib.image
import pytest
import tiny
from rich.console import Console
from tiny_prose import prose, with_another_word
from typer.testing import CliRunner

from lilliput.base.units import Tokens
from lilliput.cli.app import app
from lilliput.computations.reference_log_probabilities import ReferenceLogProbabilities
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.pairs import PairFiles
from lilliput.data.mixture import Mixture
from lilliput.data.pair_data import PairData
from lilliput.objectives.dpo import DPO
from lilliput.run import before_training, duplicates
from lilliput.run.data_facts import data_facts
from lilliput.run.run_data import RunData
from lilliput.train.phase import Stage

WITHIN, BETWEEN, HELDOUT, TALKS = 6, 4, 3, 5
"""Near-duplicates that are planted."""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Texts, conversations and pairs with equal and near-duplicates; both sides of a pair are alike by themselves."""
    folder, draw = tmp_path_factory.mktemp("duplicates"), random.Random(0)
    base = tiny.recipe(folder)
    learned, held = ([f"{kind}{n}" for n in range(4_000) if base.split.is_heldout(f"{kind}{n}") == is_heldout]
                     for kind, is_heldout in (("l", False), ("h", True)))  # fmt: skip
    names = iter(learned)
    texts = [{"id": next(names), "text": prose(draw, 50)} for _ in range(150)]
    near = [with_another_word(draw, row["text"]) for row in texts]
    own = texts + [{"id": next(names), "text": text} for text in (*near[:WITHIN], texts[20]["text"], texts[20]["text"])]
    more = [{"id": next(names), "text": prose(draw, 50)} for _ in range(80)]
    more += [{"id": next(names), "text": text} for text in (*near[30 : 30 + BETWEEN], texts[40]["text"])]
    more += [{"id": held[-1 - n], "text": prose(draw, 50)} for n in range(6)]
    fresh = [prose(draw, 50) for _ in range(12)]
    own += [
        {"id": name, "text": text}
        for name, text in zip(held, (*near[50 : 50 + HELDOUT], texts[60]["text"], *fresh), strict=False)
    ]
    talks = [prose(draw, 80) for _ in range(100)]
    talks += [with_another_word(draw, talk) for talk in talks[1 : 1 + TALKS]]
    chats = [
        {
            "id": next(names) if n else held[-1],
            "messages": [{"role": "user", "content": f"Say {n}."}, {"role": "assistant", "content": talk}],
        }
        for n, talk in enumerate(talks)
    ]
    pairs = [{"prompt": prose(draw, 60), "chosen": f"It is {n}.", "rejected": "Nobody knows that."} for n in range(80)]
    for name, rows in (("own", own), ("more", more), ("chats", chats), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpora = {
        "texts": TextFiles(paths=(str(folder / "own.jsonl"),)),
        "more": TextFiles(paths=(str(folder / "more.jsonl"),)),
        "pairs": PairFiles(paths=(str(folder / "pairs.jsonl"),)),
    }
    _, _, _, chatml, sft, _ = base.timeline
    phase = tiny.pretraining(data=Mixture(weights={"texts": 3, "more": 1}))
    sft = replace(sft, length=1024, batch_tokens=4 * 1024, tokens=Tokens(6 * 4 * 1024))
    data = PairData(corpus="pairs", reference="reference")
    dpo = replace(sft, name="dpo", data=data, stages=(Stage(share=1.0, objective=DPO()),))
    reference = ReferenceLogProbabilities(name="reference", corpus="pairs")
    return replace(base, corpora={**base.corpora, **corpora}, timeline=(phase, chatml, sft, reference, dpo))


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    before_training.data(recipe, folder, Console(file=io.StringIO()))
    return folder


def test_planted_duplicates_are_counted_where_they_are(run):
    found = data_facts(RunData(run), None).duplicates
    assert {(one.documents, one.also_in): (one.equal, one.near) for one in found.counts} == {
        ("texts", "texts"): (2, WITHIN),
        ("more", "more"): (0, 0),
        ("chats", "chats"): (0, TALKS),
        ("pairs", "pairs"): (0, 0),
        ("more", "texts"): (1, BETWEEN),
        ("texts, held out", "texts"): (1, HELDOUT),
        ("more, held out", "more"): (0, 0),
        ("chats, held out", "chats"): (0, 0),
        ("pairs, held out", "pairs"): (0, 0),
    }  # fmt: skip
    assert all(one.is_all for one in found.texts)
    assert all(0.8 <= one.likeness < 1 and one.texts[0] != one.texts[1] for one in found.examples)
    talk = next(one for one in found.examples if one.documents == "chats")
    assert talk.texts[0].startswith("Say") and "assistant" not in talk.texts[0]


def test_long_corpora_are_searched_at_their_beginning_and_that_is_said(run, tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "SEARCHED", {"train": 40_000, "heldout": 40_000})
    monkeypatch.setattr(duplicates, "_BATCH", 16)
    told = CliRunner().invoke(app, ["data", str(run), "--report", "--page", str(tmp_path / "page.html")])
    said = " ".join(told.output.split())
    assert told.exit_code == 0 and "Near-duplicates were searched for in the first" in said, told.output
    assert "of texts" in said and "all of the others" in said
    assert "Near-duplicates were searched for in the first" in (tmp_path / "page.html").read_text()


@pytest.mark.browser
def test_a_browser_draws_near_duplicates_side_by_side(run, tmp_path):
    told = CliRunner().invoke(app, ["data", str(run), "--report"])
    assert told.exit_code == 0 and "All documents were searched" in told.output, told.output
    drawn = browser.dom(run / "data.html", tmp_path)
    assert drawn.count("<mark>something") >= 5 and drawn.count('class="beside"') == 8
    picture = matplotlib.image.imread(browser.screenshot(run / "data.html", tmp_path, 400, 1600))
    assert picture.shape[:2] == (1600, 400) and picture[:, :, :3].std() > 0.02
