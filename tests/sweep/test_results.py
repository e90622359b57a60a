"""A sweep is shown whatever its names and values are: as Markdown, in the terminal, as a picture."""

from dataclasses import replace
from io import StringIO

import pytest
import tiny
from markdown_it import MarkdownIt

from lilliput.base.errors import RunError
from lilliput.base.files import write_text
from lilliput.base.run_folder import RunFolder
from lilliput.base.terminal import Terminal, visible
from lilliput.sweep.axes import SweepAxis, expanded, variants
from lilliput.sweep.metric import choose, outcome
from lilliput.sweep.plot import _limit, picture
from lilliput.sweep.results import estimate, seeds_to_tell
from lilliput.sweep.table import footnotes, markdown, table

HOSTILE = [
    "a|b",
    "[/x]",
    "![a](b)",
    "<b>",
    "*a*",
    "# a",
    "$\\frac$",
    "$a$",
    "\ud800",
    "\x1b[2J\x07",
    "ש\u202eb",
    "1. a",
]


def found(name):
    """Results of a sweep in which everything has this name."""
    path = f"{name}.lr"

    def setting(place):
        there = {"mean": 1.0 + place, "interval": None, "seeds": {"0": 1.0 + place}, "seconds": 2.0}
        costs = {"parameters": 4, "steps": 1, "tokens": 2, "positions": 2, "operations": 3.0}
        compared = {"difference": None, "told_apart": None, "seeds_to_tell": None, "failures": {"0": name}}
        return (
            {"name": f"{name} {place}", "title": f"{name} {place}", "values": {path: f"{name} {place}", "size": place}}
            | there
            | costs
            | compared
        )

    return {
        "recipe": name,
        "metric": {"name": f"{name}.{name}", "phase": name, "corpus": name, "unit": "bits per byte"},
        "over": {path: ["1", "2"], "size": ["0", "1"]},
        "seeds": [0],
        "variants": 2,
        "finished": 2,
        "failed": 0,
        "best": f"{name} 0",
        "notes": [name],
        "settings": [setting(0), setting(1)],
    }


def parsed(text):
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    inline = [token.children for token in tokens if token.type == "inline"]
    return [token.type for token in tokens], ["".join(child.content for child in children) for children in inline]


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_is_shown(name):
    kinds, said = parsed(markdown(found(name)))
    assert kinds == parsed(markdown(found("a")))[0]
    assert said[-3:] == [
        visible(name),
        f"{visible(name)} 0, seed 0: {visible(name)}.",
        f"{visible(name)} 1, seed 0: {visible(name)}.",
    ]
    screen = Terminal(file=StringIO(), width=200)
    screen.print(table(found(name)))
    screen.print(*footnotes(found(name)))
    assert screen.file.getvalue().count(visible(name)) == 10


def test_any_name_is_drawn():
    crossed = found("$\\frac$ [/x]\ud800\x1b\x00")
    assert picture(crossed).startswith(b"\x89PNG")
    del crossed["over"]["size"]  # no number is left to draw a line over
    assert picture(crossed).startswith(b"\x89PNG")


def test_a_path_that_ends_another_is_told_apart(tmp_path):
    recipe = replace(tiny.recipe(tmp_path), card_claims={"about": "nothing"})
    overs = expanded(recipe, [SweepAxis(path=path, values=("a", "b")) for path in ("about", "card_claims.about")])
    assert variants(recipe, overs, [0])[0].name == "about=a,card_claims.about=a,seed=0"


def test_a_measurement_that_is_not_in_the_metrics_is_an_error_that_names_it(tmp_path):
    recipe = tiny.recipe(tmp_path / "texts")
    (variant, _) = variants(recipe, [SweepAxis(path="about", values=("a", "b"))], [0])
    with RunFolder(tmp_path / "run") as run:
        origin = {"machine": {"device": "cpu", "precision": "fp32"}, "tokens": {}}
        run.cached("phases/00-pretrain", origin, lambda folder: write_text(folder / "metrics.jsonl", '{"step": 1}\n'))
    with pytest.raises(RunError, match="'texts' was never measured"):
        outcome(tmp_path / "run", variant, choose(recipe, "pretrain.texts"))


def test_seeds_that_would_tell_are_counted():
    wide = estimate([0.10, 0.14])
    needed = seeds_to_tell(wide, 2)
    assert not wide.excludes_zero and 2 < needed < 10
    assert seeds_to_tell(estimate([0.12, -0.11]), 2) is None, "not even a hundred"
    assert seeds_to_tell(estimate([0.1]), 1) is None


def test_an_interval_that_would_squeeze_the_others_is_cut_in_the_picture():
    settings = [
        {"mean": mean, "interval": [mean - half, mean + half], "seeds": {"0": mean - 0.01, "1": mean + 0.01}}
        for mean, half in ((1.0, 0.05), (1.1, 0.63), (1.2, 0.06))
    ]
    assert 0.06 < _limit(settings) < 0.63
    assert _limit(settings[1:2]) > 0.63, "one alone squeezes nothing"
