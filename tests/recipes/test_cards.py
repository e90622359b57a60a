"""docs/cards.md is true: what its tables name is in the recipes, with the values that stand beside it."""

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from lilliput.base.implemented import unimplemented_parts
from lilliput.base.spec import to_plain
from lilliput.base.units import Tokens
from lilliput.cli import app
from lilliput.model import ModelSpec
from lilliput.publish.card.published_scores import peer_tables
from lilliput.recipe import Release, load_machine, load_recipe, names

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/cards.md").read_text(encoding="utf-8")
STATEMENTS = json.loads((ROOT / "tests/fixtures/cards/statements.json").read_text(encoding="utf-8"))
TEMPLATE = (ROOT / "lilliput/publish/card/card.md.jinja").read_text(encoding="utf-8")
KINDS = (
    "as stated",
    "our choice",
    "claim",
    "note",
    "section",
    "measured",
    "published",
    "elsewhere",
    "not built",
)
UNBUILT: set[str] = set()


class Row(NamedTuple):
    recipe: str
    statement: str
    spans: list[str]
    kind: str
    what: str


def rows() -> list[Row]:
    found = []
    for part in PAGE.split("\n## ")[1:]:
        recipe = re.match(r".*: `([a-z0-9-]+)`", part).group(1)
        for line in [line for line in part.splitlines() if line.startswith("| ")][1:]:
            statement, here, how = (cell.strip() for cell in line.strip("|").split("|"))
            kind, _, what = how.partition(": ")
            found.append(Row(recipe, statement, re.findall(r"`([^`]+)`", here), kind, what))
    return found


def at(value: Any, path: str) -> Any:
    """What a path leads to: fields, keys of mappings (with blanks in them), places in tuples and names of entries."""
    if not path:
        return value
    if isinstance(value, Mapping):
        key = max((key for key in value if path == key or path.startswith(f"{key}.")), key=len)
        return at(value[key], path[len(key) + 1 :])
    name, _, rest = path.partition(".")
    if isinstance(value, tuple):
        named = [one for one in value if name in (getattr(one, "name", None), type(one).__name__)]
        return at(named[0] if named else value[int(name)], rest)
    return at(getattr(value, name), rest)


def is_equal(value: Any, told: str) -> bool:
    """Whether a value is the one told: a literal, the class of a spec, a number of tokens or of parameters."""
    if re.fullmatch(r"[A-Z]\w+", told) and told not in ("None", "True", "False"):
        return type(value).__name__ == told
    literal = ast.literal_eval(told)
    if isinstance(value, ModelSpec):
        return value.skeleton().parameter_counts()["total"] == literal
    return int(value) == int(literal) if isinstance(value, Tokens) else value == literal


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.recipe}: {row.statement}"[:80])
def test_what_stands_for_a_statement_is_there(row):
    recipe = load_recipe(row.recipe)
    assert row.kind in KINDS and (row.what or row.kind in ("as stated", "measured")), row
    for span in row.spans:
        path, equals, told = span.partition(" = ")
        machine = re.fullmatch(r"machine ([a-z0-9-]+): (.+)", path)
        value = at(load_machine(machine.group(1)), machine.group(2)) if machine else at(recipe, path)
        assert is_equal(value, told) if equals else value, f"{span}: it is {value!r}"
    match row.kind:
        case "as stated" | "our choice" | "measured":
            assert row.spans
        case "claim":
            assert row.what in recipe.card_claims
        case "note":
            assert row.what in recipe.notes.contradictions
        case "section":
            title = row.what.partition(",")[0]
            assert title == "front matter" or re.search(rf"^##+ {re.escape(title)}$", TEMPLATE, flags=re.M)
        case "published":
            known = {row.model for table in peer_tables().values() for row in table.rows}
            assert set(row.what.split(", ")) <= known
        case "not built":
            assert row.what in UNBUILT


@pytest.mark.parametrize("name", sorted({row.recipe for row in rows()}))
def test_everything_that_a_recipe_says_of_its_card_is_in_the_table(name):
    recipe, mine = load_recipe(name), [row for row in rows() if row.recipe == name]
    assert {row.what for row in mine if row.kind == "claim"} == set(recipe.card_claims)
    assert {row.what for row in mine if row.kind == "note"} == set(recipe.notes.contradictions)


@pytest.mark.parametrize("name", sorted({row.recipe for row in rows()}))
def test_every_statement_of_a_card_has_a_row(name):
    """The list is one of the cards, which are not ours to keep here: a row may not be lost without notice."""
    assert [row.statement for row in rows() if row.recipe == name] == STATEMENTS[name]
    assert len(set(STATEMENTS[name])) == len(STATEMENTS[name])


def test_the_table_of_mtlm1_200m_is_that_of_mtlm1_152m_but_for_the_shape():
    larger, smaller = load_recipe("mtlm1-200m"), load_recipe("mtlm1-152m")
    same = replace(smaller, name=larger.name, model=larger.model, timeline=larger.timeline)
    assert to_plain(same) == to_plain(larger)
    phases = [
        [to_plain(entry) for entry in one.timeline if not isinstance(entry, Release)] for one in (smaller, larger)
    ]
    assert phases[0] == phases[1]


def test_each_model_that_is_compared_with_is_in_the_table():
    told = {name for row in rows() if row.kind == "published" for name in row.what.split(", ")}
    compared = {row.model for name in ("odinnext", "mtlm") for row in peer_tables()[name].rows}
    assert told == compared | {"SLM-10M"}, "the table of open-slm has models of other cards, too"


def test_what_is_not_built_is_what_the_recipes_cannot_run():
    assert {row.what for row in rows() if row.kind == "not built"} == UNBUILT
    assert not any(unimplemented_parts(load_recipe(name)) for name in names("lilliput.recipes"))


def test_commands_that_the_table_names_are_there():
    commands = set(re.findall(r"`lilliput (\w+)", PAGE))
    assert commands == {"judge", "plan", "rank"}
    for command in commands:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
