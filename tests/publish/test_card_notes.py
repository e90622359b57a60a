"""What a recipe says on cards, and the release beside other models."""

import re

import pytest
import yaml
from card_records import record_of
from publish.test_quoted import card_of

from lilliput.base.spec import to_plain
from lilliput.publish.card.card import card
from lilliput.publish.card.notes import CardNotes
from lilliput.publish.card.published_scores import peer_tables
from lilliput.publish.card.quoted import QuotedCard, contradictions
from lilliput.recipe import load_recipe, names


def scored(task, metric, value):
    return {"task": task, "metric": metric, "value": value, "stderr": 0.004, "chance": 0.25, "items": 9, "note": ""} | {
        "higher_is_better": True
    }


@pytest.fixture
def record():
    made = record_of(chat=False)
    made["evaluation"]["scores"].append(scored("HellaSwag", "acc_norm", 0.2765))
    return made


def with_notes(record, name):
    record["recipe"]["notes"] = to_plain(load_recipe(name).notes)
    return card(record)


def test_a_recipe_without_notes_has_a_card_without_their_sections(record):
    text = card(record)
    for heading in ("Intended uses", "Not suited for", "Citation", "References", "Contradictions of the original card"):
        assert f"## {heading}" not in text
    assert "Compared with other models" not in text, "this suite has no peers"
    assert "notes" not in to_plain(load_recipe("quickstart")) and load_recipe("quickstart").notes == CardNotes()


def test_uses_tier_tags_ranking_and_citation(record):
    text = with_notes(record, "slm-10m")
    head = yaml.safe_load(text.split("---\n")[1])
    assert {"text-ranking", "gqa", "multiple-choice"} < set(head["tags"]) and len(set(head["tags"])) == len(
        head["tags"]
    )
    assert head["metrics"] == ["perplexity", "accuracy"] and head["pipeline_tag"] == "text-generation"
    for part in ("## Intended uses", "## Not suited for", "- chat\n", "10M of the Open SLM Leaderboard", '"biomass"'):
        assert part in text
    assert "@software{liodonai2026slm10m,\n  author = {{Liodon AI}}," in text
    (program,) = re.findall(r"```python\n(import lilliput.*?)```", text, flags=re.S)
    compile(program, "card", "exec")


def test_cutoff_contradictions_advice_and_references(record):
    text = with_notes(record, "mtlm1-200m")
    assert "Knowledge cutoff: that of its texts" in text and "**ARC-Easy**: 38.64%" in text and "63.46%" in text
    text = with_notes(record, "odinnext-138m")
    assert "## References" in text and "arXiv:2404.07904" in text and "repetition penalty of 1.2 to 1.3" in text
    assert "Pin a commit" in text, "its code runs"


def test_a_release_stands_beside_other_models_and_earlier_ones(record):
    record["release"]["suite"] = "mtlm"
    earlier = {"scores": [scored("HellaSwag", "acc_norm", 0.2612)], "averages": []}
    record["earlier"] = [{"name": "garden-small", "tokens": 598_016, "evaluation": earlier}]
    table = card(record).split("### Compared with other models")[1].split("##")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    assert rows[0][:5] == ["Company", "Model", "Training tokens", "OpenBookQA", "ARC-Easy"]
    assert {len(row) for row in rows} == {16}
    by_model = {row[1]: row for row in rows}
    assert by_model["OPT-125M"][2:5] == ["180B", "\\~30", "\\~35.0"]
    assert by_model["garden-small"][2] == "598,016" and by_model["garden-small"][7] == "26.12"
    assert by_model["**garden-base**"][0] == "**this run**" and by_model["**garden-base**"][7] == "**27.65**"
    assert rows[0][-1] == "By" and by_model["OPT-125M"][-1] == "a" and by_model["garden-small"][-1] == "b"
    assert "- a: MTLM1-200M card; a harness that is not named\n" in table
    assert "- b: this card; lm-evaluation-harness 0.4.13\n" in table
    assert "mixes harnesses (lm-evaluation-harness, a harness that is not named)" in table
    assert "WinoGrande of MTLM1-200M: 50.00% is no share of 1,267 questions" in table


SHOWN = {"Winograd": "Winograd (WSC)", "ARC (avg)": "ARC, mean", "Avg": "Average"}
"""Columns whose names differ from the original card's."""
FIRST_OF_TWO = ("MTLM1-200M", "ARC-Easy")
"""That card gives two values; ours has the one of its own results, and names the other (test_quoted.py)."""


@pytest.mark.parametrize(
    ("suite", "name"), [("mtlm", "mtlm1-200m"), ("open-slm", "slm-10m"), ("odinnext", "odinnext-138m-instruct")]
)
def test_the_tables_of_the_three_cards_are_rebuilt_beside_a_release(record, suite, name):
    """Each figure of an original card is in the row of its model, under its task; what cannot be is named."""
    record["release"]["suite"] = suite
    section = card(record).split("### Compared with other models")[1].split("\n#")[0]
    head, _, *rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")
    ]
    by_model = {row[head.index("Model")]: row for row in rows}
    found = 0
    for table in card_of(name).tables:
        for row in table.rows:
            for column, score in zip(table.columns, row.scores, strict=True):
                shown = by_model[row.model][head.index(SHOWN.get(column, column))]
                is_second = (row.model, column) == FIRST_OF_TWO and score == "39.64"
                assert is_second or shown.lstrip("\\~") == score.strip("~%"), (row.model, column)
                found += 1
    assert found == {"mtlm": 12 + 4 * 5, "open-slm": 6, "odinnext": 12 * 3}[suite]
    objections = contradictions(QuotedCard(tables=(peer_tables()[suite],)))
    assert len(objections) == {"mtlm": 1, "open-slm": 0, "odinnext": 1}[suite]
    assert all(f"- {line}" in section for line in objections)


@pytest.mark.parametrize("name", names("lilliput.recipes"))
def test_notes_of_every_recipe_make_a_card(name, record):
    assert with_notes(record, name).startswith("---\n")
