"""Computations of a timeline: made once, kept whole, resumed after a kill, and what comes later depends on them."""

import json
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import ClassVar

import pytest
import tiny
from rich.console import Console

from lilliput.base.errors import LilliputError, RunError
from lilliput.base.files import read_json
from lilliput.base.units import Tokens
from lilliput.computations.computation import Computation
from lilliput.computations.measure_heldout import MeasureHeldOut
from lilliput.growth.add_tokens import AddTokens
from lilliput.growth.use_ema import UseEma
from lilliput.plan.count import plan
from lilliput.report.page import write_report
from lilliput.run import pipeline
from lilliput.run.listing import overview, remove, since, spare
from lilliput.train.machine import Machine
from lilliput.train.metrics_file import measured_of, read_metrics

MACHINE = Machine(device="cpu", precision="fp32", threads=1)
PART = "computed/01-lengths"


@dataclass(frozen=True, kw_only=True)
class Lengths(Computation):
    """Counts, in two files of which the first one survives a kill."""

    name: str
    corpus: str = "texts"
    calls: ClassVar[list[str]] = []
    fails: ClassVar[bool] = False
    strange: ClassVar[bool] = False

    def reads(self):
        return (self.corpus,)

    def compute(self, lineage, tokens, folder, *, machine, seed):
        for name in ("a", "b"):
            if (folder / f"{name}.json").is_file():
                continue
            if name == "b" and Lengths.fails:
                raise KeyboardInterrupt
            Lengths.calls.append(name)
            size = tokens[self.corpus].index["sides"]["train"]["tokens"]
            (folder / f"{name}.json").write_text(json.dumps({"size": size, "layers": lineage.model.spec.layers}))
        if Lengths.strange:
            (folder / "Notes.txt").write_text("mine")
        return {"files": 2}


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(Lengths, "calls", [])


def console():
    return Console(file=StringIO(), width=200)


def recipe(folder, *entries, then=()):
    return replace(tiny.recipe(folder), timeline=(tiny.pretraining(steps=4), *entries, *then))


def later(steps=4):
    return replace(tiny.pretraining(steps=steps), name="more")


def train(whole, run):
    out = console()
    pipeline.train(whole, run, MACHINE, out)
    return out.file.getvalue()


def test_it_is_made_once_kept_with_hashes_and_listed(tmp_path):
    whole, run = recipe(tmp_path / "data", Lengths(name="lengths")), tmp_path / "run"
    assert "01 lengths, Lengths: computed" in train(whole, run)
    assert overview(run).state == "lengths: computed" and Lengths.calls == ["a", "b"]
    record = read_json(run / "parts/computed.01-lengths.json")
    assert record["outputs"]["value"] == {"files": 2} and set(record["outputs"]["files"]) == {"a.json", "b.json"}
    train(whole, run)
    assert Lengths.calls == ["a", "b"]
    (run / PART / "b.json").write_text("{}")
    (run / PART / "a.json").unlink()
    (run / PART / "b.json").unlink()
    train(whole, run)
    assert Lengths.calls == ["a", "b"] * 2, "what was lost is made again"
    (other,) = plan(whole, MACHINE)["others"]
    assert (other["kind"], other["what"], other["reads"]) == ("computation", "lengths, Lengths", ["texts"])
    page = write_report(run).read_text()
    assert "<h2>lengths <small>computed</small></h2>" in page and "<dt>files</dt><dd>2</dd>" in page
    assert not [one for one in spare(run) if one.name.startswith("computed")]


def test_a_kill_keeps_what_is_written(tmp_path, monkeypatch):
    whole, run = recipe(tmp_path / "data", Lengths(name="lengths")), tmp_path / "run"
    monkeypatch.setattr(Lengths, "fails", True)
    with pytest.raises(KeyboardInterrupt):
        train(whole, run)
    assert overview(run).state == "lengths: begun"
    monkeypatch.setattr(Lengths, "fails", False)
    train(whole, run)
    assert Lengths.calls == ["a", "b"], "the first file was not made again"


def test_what_comes_later_depends_on_it(tmp_path):
    whole, run = recipe(tmp_path / "data", Lengths(name="lengths"), then=(later(),)), tmp_path / "run"
    train(whole, run)
    before = read_json(run / "parts/phases.02-more.json")["from"]["before"]
    plain = recipe(tmp_path / "data", then=(later(),))
    train(plain, tmp_path / "plain")
    assert before != read_json(tmp_path / "plain/parts/phases.01-more.json")["from"]["before"]
    other = recipe(tmp_path / "data", Lengths(name="lengths", corpus="chats"), then=(later(),))
    with pytest.raises(RunError, match=r"computed/01-lengths was made with other settings: computation\.corpus"):
        train(other, run)
    assert read_json(run / "parts/computed.01-lengths.json")["done"]
    assert [one.name for one in since(run, PART)] == [PART, "phases/02-more"]
    remove(run, since(run, PART))
    assert not (run / PART).exists()


def test_publishing_never_computes(tmp_path):
    base = tiny.recipe(tmp_path / "data")
    whole = replace(base, timeline=(tiny.pretraining(steps=4), Lengths(name="lengths"), *base.timeline[1:3]))
    pipeline.train(whole, tmp_path / "run", MACHINE, console(), until="pretrain")
    with pytest.raises(RunError, match=r"lengths, Lengths, is not computed[\s\S]*lilliput train"):
        pipeline.publish(whole, tmp_path / "run", console())
    assert not Lengths.calls


def test_other_files_than_a_run_writes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Lengths, "strange", True)
    with pytest.raises(RunError, match=r"wrote files that no run writes: computed/01-lengths/Notes.txt"):
        train(recipe(tmp_path / "data", Lengths(name="lengths")), tmp_path / "run")


def test_a_name_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(LilliputError, match="cannot be named"):
        recipe(tmp_path / "data", Lengths(name="../lengths"))


def test_held_out_text_is_measured_where_the_model_stands(tmp_path):
    phase, length = tiny.pretraining(steps=4), 32
    measures = [MeasureHeldOut(name=name, corpora=("texts",), length=length, positions=65_536) for name in ("a", "b")]
    whole = replace(tiny.recipe(tmp_path / "data"), timeline=(phase, measures[0], UseEma(), measures[1]))
    train(whole, tmp_path / "run")
    last = measured_of(read_metrics(tmp_path / "run/phases/00-pretrain/metrics.jsonl"))[-1]["heldout"]
    found = [read_json(tmp_path / f"run/parts/computed.{name}.json")["outputs"]["value"] for name in ("01-a", "03-b")]
    assert found[0] == {"live": {"texts": last["texts/live"]}, "average": {"texts": last["texts"]}}
    assert found[1] == {"live": {"texts": last["texts"]}}, "the average became the weights"
    alone = replace(whole, timeline=(phase, UseEma(), later()))
    measured = replace(whole, timeline=(phase, UseEma(), later(), measures[0]))
    for one, folder in ((alone, "alone"), (measured, "measured")):
        train(one, tmp_path / folder)
    weights = Path("phases/02-more/final/weights.safetensors")
    assert (tmp_path / "alone" / weights).read_bytes() == (tmp_path / "measured" / weights).read_bytes()


def test_a_release_after_it_is_current_and_its_card_says_how_to_make_it_again(tmp_path):
    base = tiny.recipe(tmp_path / "data", tiny.GQA_SPEC)
    entries = (tiny.pretraining(steps=4), Lengths(name="lengths", corpus="chats"), *base.timeline[1:3])
    phase = replace(entries[0], length=128, batch_tokens=4 * 128, tokens=Tokens(4 * 4 * 128))
    whole = replace(base, timeline=(AddTokens(tokens=tiny.CHATML), phase, *entries[1:]))
    (release,) = pipeline.run(whole, tmp_path / "run", MACHINE, console())
    found = overview(tmp_path / "run")
    assert found.state == "published" and not found.outdated
    assert "chats" in (release / "README.md").read_text()
