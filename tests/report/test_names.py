"""Pages say what a run is called, whatever that is, and are the same pages."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import tiny
from report.test_page import lines

from lilliput.base.terminal import visible
from lilliput.report.comparison_page import write_page
from lilliput.report.page import _facts, render
from lilliput.report.records import PhaseRecord, RunRecord

HOSTILE = [
    *("a|b a'b a,b [x] ]]> {{ 1 }}{% x %} &lt;b&gt; 😀 javascript:alert(1)", "x" * 300, "\u202eש\ud800\x1b\x00"),
    *("</script><script>alert(1)</script>", "</title></style><img src=x>", '"><svg onload=alert(1)>', "<!--", "-->"),
]


class Reader(HTMLParser):
    """The elements of a page with their attributes, and what it says."""

    def __init__(self):
        super().__init__()
        self.elements, self.said = [], ""

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, [name for name, _ in attributes]))
        self.said += "".join(value or "" for _, value in attributes)

    def handle_endtag(self, tag):
        self.elements.append((f"/{tag}", []))

    def handle_data(self, data):
        self.said += data


def read(page):
    reader = Reader()
    reader.feed(page)
    return reader


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return tiny.recipe(tmp_path_factory.mktemp("names"), tiny.GQA_SPEC)


def report(recipe, name):
    """The page of a run in which everything has this name."""
    recipe = replace(recipe, about=name)
    object.__setattr__(recipe, "name", name)  # which a recipe that is made refuses; a template must not rely on that
    score = {"task": name, "metric": name, "value": 1.0, "stderr": None, "chance": 0.5, "note": name}
    phase = PhaseRecord(
        name=name,
        planned=8,
        parameters=1,
        steps=lines(8),
        measured=[{"step": 4, "tokens": 40, "heldout": {name: 2.0, f"{name}/live": 2.1}}],
        incidents=[{"step": 3, "incident": name, "what": name}],
    )
    environment = {key: name for key in ("processor", "cores", "lilliput", "commit", "python")} | {
        "packages": {name: name}
    }
    run = RunRecord(
        folder=Path("runs/a"),
        recipe=recipe,
        machine={"device": name, "precision": name},
        environment=environment,
        phases=[phase],
        computed=[(name, {name: name})],
        releases=[(name, {"scores": [score], "samples": [{"prompt": name, "text": name}]})],
    )
    return render("run.html.jinja", _facts(run))


def comparison(folder, name):
    """The page of a comparison in which everything has this name."""
    point = {"step": 1, "tokens": 10, "seconds": 1.0, "value": 2.0}
    spent = {"spent": [10.0, 20.0], "ratio": 2.0, "interval": [1.0, None]}
    found = {
        "corpus": name,
        "unit": "bits per byte",
        "runs": [{"name": name, "points": [point, point | {"tokens": 20, "step": 2}]}] * 2,
        "against": [{"run": name, "levels": [{"value": 2.0, "tokens": spent, "seconds": spent}], "says": name}],
        "notes": [name],
    }
    write_page(found, folder / "page.html")
    return (folder / "page.html").read_text()


def test_a_page_is_the_same_whatever_its_run_is_called(recipe, tmp_path):
    pages = (lambda name: report(recipe, name), lambda name: comparison(tmp_path, name))
    for page in pages:
        plain = read(page("a")).elements
        assert len(plain) > 60
        for name in HOSTILE:
            reader = read(page(name))
            assert reader.elements == plain, ascii(name)
            assert reader.said.count(visible(name)) > 5, ascii(name)
            assert "\u202e" not in reader.said and "\x1b" not in reader.said
