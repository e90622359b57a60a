"""The judge command: a table, records and a page of several models, on conversations that a run held out."""

import json

import pytest
import tiny
import tiny_commands
from rich.console import Console
from tiny_teacher import TinyTeacher

from lilliput.report.judged import scores_table, write_judged_page
from lilliput.run import pipeline
from lilliput.train.machine import Machine


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge")
    machine = Machine(device="cpu", precision="fp32", threads=1)
    pipeline.run(tiny.recipe(folder / "data"), folder / "run", machine, Console(quiet=True))
    return folder


FEW = ("--each", "2", "--limit", "4", "--max-new-tokens", "12", "--device", "cpu")


def test_models_are_judged_side_by_side(desk):
    release = "run/releases/tiny-instruct"
    made = tiny_commands.lilliput("judge", "run", release, *FEW, "--page", "p.html", "--records", "r.json", folder=desk)
    assert "replies that end by themselves" in made.out and "answers, bits per byte" in made.out
    page, records = (desk / "p.html").read_text(), json.loads((desk / "r.json").read_text())
    assert "List exactly" in page and "<td" in page and page.count("does not fit") == 0
    one, other = records["models"]
    assert one["scores"] == other["scores"] and len(one["replies"]) == 14
    shown = json.loads(
        tiny_commands.lilliput("judge", release, *FEW, "--chats", "data/chats.jsonl", "--json", folder=desk).out
    )
    assert {score["metric"] for score in shown["models"][0]["scores"]} == {score["metric"] for score in one["scores"]}


def test_a_judge_at_an_endpoint_compares_models(desk):
    with TinyTeacher(reply=lambda prompt: "A") as server:
        options = ("--judge", "wise", "--endpoint", server.url, "--price", "1,2")
        base = "run/releases/tiny-instruct"
        made = tiny_commands.lilliput("judge", "run", base, *FEW, *options, "--records", "j.json", folder=desk)
    rate = json.loads((desk / "j.json").read_text())["pairwise"]["rates"][0]
    assert rate["ties"] == 4 and rate["value"] == 0.5 and "asked in both orders" in made.out, "it is the same model"
    refused = ("judge", "run", *FEW, *options)
    tiny_commands.refused(*refused, folder=desk, says="nothing to be compared with")


def test_what_cannot_be_judged_is_refused(desk):
    tiny_commands.refused("judge", "run/releases/tiny-base", *FEW, folder=desk, says="no chat template")
    (desk / "mine.html").write_text("mine")
    tiny_commands.refused("judge", "run", *FEW, "--page", "mine.html", folder=desk)


def test_releases_are_compared_by_what_is_recorded_of_them(desk):
    releases = [f"run/releases/tiny-{name}" for name in ("base", "instruct")]
    made = tiny_commands.lilliput("compare", *releases, folder=desk)
    assert "tiny-base" in made.out and "replies that end by themselves" in made.out
    found = json.loads(tiny_commands.lilliput("compare", *releases, "--json", folder=desk).out)
    base, instruct = (one["scores"] for one in found["releases"])
    assert len(instruct) > len(base) > 0
    tiny_commands.refused("compare", releases[0], "run", folder=desk, says="run is no release, others are")
    tiny_commands.refused("compare", *releases, "--at", "1", folder=desk, says="--at has no effect on releases")


def test_a_figure_that_a_model_lacks_stays_empty(tmp_path):
    def score(metric, value, **more):
        plain = {"task": "t", "metric": metric, "value": value, "stderr": 0.01, "chance": None}
        return plain | {"higher_is_better": True} | more

    scores = [[score("a", 0.5, chance=0.25)], [score("a", 0.25), score("tokens of a reply", 12.0, stderr=None)]]
    assert scores_table(["x", "y"], scores).rows == [
        ("a", "50.0% ± 1.0%", "25.0% ± 1.0%", "25.0%", "higher"),
        ("tokens of a reply", "", "12.0", "", "higher"),
    ]
    reply = {"kind": "k", "prompt": "p", "reply": "<b>", "tokens": 3, "closed": False, "loops": True}
    replies = [reply | {"follows": False}]
    judged = [{"scores": each, "replies": few} for each, few in zip(scores, (replies, []), strict=True)]
    write_judged_page(["x", "y"], judged, tmp_path / "p.html")
    page = (tmp_path / "p.html").read_text()
    assert "&lt;b&gt;" in page and "does not follow, does not end, loops, 3 tokens" in page
    assert "does not fit the context" in page
