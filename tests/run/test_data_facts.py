"""The page about a run's data: planted duplicates, drops and leaks are counted, and a browser draws it."""

import io
import json
from dataclasses import replace

import browser
import matplotlib.image
import pytest
import tiny
from rich.console import Console
from typer.testing import CliRunner

from lilliput.cli.app import app
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Filtered, Length
from lilliput.data.mixture import Mixture
from lilliput.report.data_page import mixture_table
from lilliput.run import before_training, pipeline
from lilliput.run.data_facts import data_facts
from lilliput.run.run_data import RunData
from lilliput.train.machine import Machine

AGAIN, SHORT = 7, 5


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Two corpora: one text of the first is there eight times, one in both, one on both sides; some are too short."""
    folder = tmp_path_factory.mktemp("facts")
    base = tiny.recipe(folder / "base")
    split = base.split
    own = [{"id": f"d{n}", "text": tiny.sentences(n)} for n in range(200)]
    learned = [row for row in own if not split.is_heldout(row["id"])]
    (held, *_) = [row for row in own if split.is_heldout(row["id"])]
    fresh = iter(f"x{n}" for n in range(1_000) if not split.is_heldout(f"x{n}"))
    own += [{"id": next(fresh), "text": learned[0]["text"]} for _ in range(AGAIN)]
    own += [{"id": next(fresh), "text": held["text"]}]
    own += [{"id": f"s{n}", "text": "no"} for n in range(SHORT)]
    more = [{"id": f"m{n}", "text": f"More: {tiny.sentences(1_000 + n)}"} for n in range(60)]
    more += [{"id": next(fresh), "text": learned[1]["text"]}]
    for name, rows in (("own", own), ("more", more)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpora = {
        "texts": Filtered(source=TextFiles(paths=(str(folder / "own.jsonl"),)), filters=(Length(at_least=10),)),
        "more": TextFiles(paths=(str(folder / "more.jsonl"),)),
    }
    phase = tiny.pretraining(data=Mixture(weights={"texts": 3, "more": 1}))
    return replace(base, corpora=corpora, timeline=(phase,))


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    before_training.data(recipe, folder, Console(file=io.StringIO()))
    return folder


def test_duplicates_drops_and_lengths_are_those_that_were_planted(run):
    facts = data_facts(RunData(run), None)
    texts, more = facts.corpora
    tiny_split = RunData(run).recipe.split
    assert texts.repeats.within == AGAIN and more.repeats.within == 0
    assert texts.repeats.elsewhere == 1 and more.repeats.elsewhere == 1 and texts.repeats.heldout == 1
    ((count, text),) = texts.repeats.examples
    (number, *_) = [n for n in range(200) if not tiny_split.is_heldout(f"d{n}")]
    assert count == AGAIN + 1 and tiny.sentences(number).startswith(text[:200])
    assert texts.dropped == {"length: too short": SHORT} and [one.number for one in texts.samples] == [1, 2, 4]
    side = texts.sides["train"]
    assert len(texts.lengths) == side["documents"] and texts.lengths.sum() == side["tokens"] - side["documents"]
    assert facts.overlaps is None


def test_the_mixture_is_planned_at_first_and_then_what_was_read(recipe, run, tmp_path):
    planned = {one.corpus: one for one in data_facts(RunData(run), None).mixture}
    assert [planned[name].asked for name in ("texts", "more")] == [0.75, 0.25]
    assert planned["texts"].share is None and planned["texts"].tokens == 0.75 * 12 * 4 * 32
    machine = Machine(device="cpu", precision="fp32", threads=1)
    pipeline.train(recipe, tmp_path / "run", machine, Console(file=io.StringIO()))
    data = RunData(tmp_path / "run")
    read = {one.corpus: one for one in data_facts(data, None).mixture}
    assert sum(one.tokens for one in read.values()) == 12 * 4 * 32
    assert read["texts"].share == pytest.approx(0.75, abs=0.02)
    assert read["more"].passes == read["more"].tokens / data.record("more")["sides"]["train"]["tokens"]
    # By the rows that the reader gives, one by one.
    cursor = list(data.cursors(0))[-1]
    assert {name: one.tokens for name, one in read.items()} == dict(cursor.positions)


def test_packed_rows_are_told_with_their_filler(run):
    data = RunData(run)
    (index, phase), *_ = data.recipe.phases.items()
    assert {one.row_fill for one in data_facts(data, None).mixture} == {None}
    packed = replace(phase, data=replace(phase.data, packing="best-fit"))
    timeline = (*data.recipe.timeline[:index], packed, *data.recipe.timeline[index + 1 :])
    data.recipe = replace(data.recipe, timeline=timeline)
    mixture = data_facts(data, None).mixture
    assert all(0 <= one.row_fill.filler < 0.5 for one in mixture if one.phase == packed.name)
    assert [column.name for column in mixture_table(mixture).columns][-2:] == ["filler", "documents cut"]


def test_the_command_writes_the_page_and_prints_sizes(run, tmp_path):
    told = CliRunner().invoke(app, ["data", str(run), "--report", "--page", str(tmp_path / "page.html")])
    assert told.exit_code == 0 and "not trained yet" in told.output, told.output
    page = (tmp_path / "page.html").read_text()
    assert "Most repeated" in page and "length: too short" in page and "Not searched" in page
    assert not (run / "data.html").exists()
    refused = CliRunner().invoke(app, ["data", str(run), "--page", str(tmp_path / "other.html")])
    assert refused.exit_code != 0 and not (tmp_path / "other.html").exists()


@pytest.mark.browser
def test_a_browser_draws_the_page(run, tmp_path):
    told = CliRunner().invoke(app, ["data", str(run), "--report"])
    assert told.exit_code == 0, told.output
    drawn = browser.dom(run / "data.html", tmp_path)
    assert drawn.count('class="curve line') == 4 and "http" not in drawn.replace("http://www.w3.org", "")
    picture = matplotlib.image.imread(browser.screenshot(run / "data.html", tmp_path, 1000, 1600))
    assert picture.shape[:2] == (1600, 1000) and picture[:, :, :3].std() > 0.02
