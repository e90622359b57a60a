"""Whatever a record says is read on its card as it is written: no link, no image, no tag, no other heading."""

import random

import pytest
import yaml
from card_records import record_of
from markdown_it import MarkdownIt

from lilliput.base.terminal import visible
from lilliput.publish.card.card import card
from lilliput.publish.card.markdown import cell, code, fenced, prose

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
PIECES = [
    *"`*_~|$[](){}<>!\\&#+-=.:;'\"\n \t",
    *"a1é漢😀",
    *"** __ ~~ $$ ``` ~~~ --- === ![a](b) [a](javascript:b) [^1] <b> <!-- --> ]]> </script> </details> <a@b.c>".split(),
    *"<javascript:b> &lt; &#91; &vert; \\| {{a}} {%a%} \x1b[2J \u202e \ud800 arc_easy https://a/b_c?d=1&e=2".split(),
    *["[a]: data:b", "# ", "> ", "- ", "+ ", "1. ", "2) ", "\n\n", "\n---\n", "\r\n", "    "],
]
TEXTS = ["".join(generator.choices(PIECES, k=9)).strip() or "a" for generator in map(random.Random, range(250))]
HARD = [
    "a|b",
    'a"b',
    "a'b",
    "a,b",
    "a b",
    "[x]",
    "]]>",
    "<script>alert(1)</script>",
    "![a](https://b/c.png)",
    "ש\u202eb",
]


def line(text):
    """What a reader of one line sees."""
    return visible(" ".join(text.split()))


def kinds(tokens):
    """Everything that a parser makes of a text but text."""
    return [token.type for token in tokens if token.type not in ("text", "softbreak")]


@pytest.mark.parametrize("around", ["{}", "- {}", "# {}", "> {}", "- **{}**: b", "| {} | b |\n|---|---|\n| {} | {} |"])
def test_prose_is_text_wherever_it_stands(around):
    outside = kinds(PARSER.parse(around.replace("{}", "a")))
    for text in [*TEXTS, *HARD]:
        tokens = PARSER.parse(around.replace("{}", prose(text)))
        assert kinds(tokens) == outside, prose(text)
        inline = [token.children for token in tokens if token.type == "inline"]
        said = ["".join(child.content for child in children) for children in inline]
        wrapped = [children for children in inline if kinds(children)]
        assert [kinds(children) for children in wrapped] == [["strong_open", "strong_close"]] * ("**" in around)
        assert said[0] == line(text) + (": b" if "**" in around else ""), prose(text)
        assert set(said) <= {said[0], "b"}


def test_ordinary_names_are_written_as_they_are():
    for text in ("arc_easy", "held-out text, bits per byte", "R&D (a + b) / 2", "-0.5 ± 0.1", "3.5 M", "it's 100%!"):
        assert prose(text) == text
    assert prose("https://example.org/a_b") == "https://example.org/a_b"


def test_templates_and_mathematics_begin_nowhere():
    for text in TEXTS:
        assert not any(begin in prose(text) for begin in ("{{", "{%", "{#", "$$", "\\\\(", "\\\\["))


def test_code_is_code_whatever_it_holds():
    for text in [*TEXTS, *HARD, ""]:
        (inline,) = [token for token in PARSER.parse(f"a {code(text)} b") if token.type == "inline"]
        assert kinds(inline.children) == ["code_inline"] and inline.children[1].content == (line(text) or " ")
        tokens = PARSER.parse(f"| a | b |\n|---|---|\n| {cell(code(text))} | b |")
        inside = [token.children for token in tokens if token.type == "inline"][2]
        assert kinds(inside) == ["code_inline"] and inside[0].content == (line(text) or " "), cell(code(text))
        (block,) = PARSER.parse(fenced(text, "text"))
        assert block.type == "fence" and block.content == f"{visible(text)}\n"


def renamed(value, names):
    """A record in which other names stand for some of its texts and keys."""
    if isinstance(value, dict):
        return {names.get(key, key): renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


def structure(text):
    """The blocks of a card with what is in their lines."""
    tokens = PARSER.parse(text.partition("\n---\n")[2])
    return [(token.type, kinds(token.children or ())) for token in tokens]


def eventful():
    """A record with something in every part of it; every text that is anybody's begins with `any`."""
    record = record_of(chat=True)
    record["recipe"] |= {"about": "any about", "card_claims": {"any name": "any claim"}, "license": "any license"}
    record["recipe"]["corpora"]["docs"]["license"] = "any license"
    record["release"]["parity"]["case"] = "any case"
    record["command"] |= {"recipe": "any recipe.py", "overrides": ["any override"], "machine": "any machine"}
    record["machine"] |= {"device": "any device", "precision": "any precision"}
    record["made_with"] = {"lilliput": "any l", "torch": "any t", "processor": "any p", "cuda": "any c", "triton": None}
    record["changes"] = [{"phase": "phases/00-pretrain", "changed": ["any change"]}]
    cursor = {"from": {"docs": 1}, "to": {"docs": 5}}
    record["phases"][0]["incidents"] = [{"step": 9, "why": "any why", "back_to": 5} | cursor]
    record["environment"] |= {key: f"any {key}" for key in ("lilliput", "commit", "python", "platform", "processor")}
    record["environment"]["packages"] = {"any package": "any version"}
    record["evaluation"]["averages"][0] |= {"name": "any average", "formula": "any formula"}
    record["evaluation"]["versions"] = {"any library": "any version of it"}
    record["evaluation"]["samples"] = [{"prompt": "any prompt", "text": "any text"}]
    record["evaluation"]["scores"][1] |= {"task": "any task", "metric": "any metric", "note": "any note of chance"}
    return record


def texts(value):
    """Keys and values of a record that are texts of anybody."""
    inside = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    found = [value] if isinstance(value, str) and value.startswith("any ") else []
    return found + [text for item in inside for text in texts(item)]


NAMES = list(dict.fromkeys([*texts(eventful()), "docs", "questions", "garden", "garden-instruct", "pretrain", "sft"]))
HOSTILE = [" ".join(HARD), *TEXTS[:3], "x" * 300, "\n---\nevil: true\n---\n# a", "`" * 7, "\ud800{{ 1 }}"]


def described(text):
    """The card of a record that says a text and a number wherever it says anything of anybody's."""
    return card(renamed(eventful(), {name: f"{text} {index} chance" for index, name in enumerate(NAMES)}))


@pytest.fixture(scope="module")
def plain():
    return structure(described("a"))


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_a_card_is_the_same_whatever_its_record_says(plain, hostile):
    made = described(hostile)
    assert structure(made) == plain
    assert all(f" {index} chance" in made for index in range(len(NAMES)))
    assert made.encode(), "it can be written"
    front = yaml.safe_load(made.split("\n---\n")[0])
    assert set(front) == {"language", "license", "library_name", "pipeline_tag", "tags", "model-index"}, front
    assert front["license"] == f"{hostile} {NAMES.index('any license')} chance"
    (model,) = front["model-index"]
    assert model["name"] == f"{hostile} {NAMES.index('garden-instruct')} chance"
    assert f"{hostile} {NAMES.index('any task')} chance" in {result["dataset"]["name"] for result in model["results"]}
