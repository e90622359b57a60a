"""The tables of the three cards, transcribed: what contradicts itself on them is found and named."""

import json
from pathlib import Path

import pytest

from lilliput.data.attainable import QUESTIONS, count_of, objection
from lilliput.evals.local_files import FILES
from lilliput.evals.suites import SUITES
from lilliput.publish.card.published_scores import peer_tables
from lilliput.publish.card.quoted import QuotedCard, QuotedRow, QuotedTable, contradictions

CARDS = Path(__file__).parents[1] / "fixtures" / "cards"


def card_of(name):
    plain = json.loads((CARDS / f"{name}.json").read_text(encoding="utf-8"))
    tables = [
        QuotedTable(
            columns=table["columns"],
            weights=table.get("weights", {}),
            rows=tuple(QuotedRow(**row | {"scores": tuple(row["scores"])}) for row in table["rows"]),
        )
        for table in plain["tables"]
    ]
    events = {name: float(tokens) for name, tokens in plain.get("events", {}).items()}
    return QuotedCard(tables=tuple(tables), tokens=float(plain["tokens"]), events=events)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (
            "mtlm1-200m",
            [
                "WinoGrande of MTLM1-200M: 50.00% is no share of 1,267 questions: 633 are 49.96% and 634 are 50.04%",
                "Winograd of MTLM1-200M: it can be Winograd (SuperGLUE WSC), not Winograd (WSC273), 43.27% is no share "
                "of 273 questions: 118 are 43.22% and 119 are 43.59%",
                "ARC-Easy of MTLM1-200M: 39.64% is no share of 2,376 questions: 941 are 39.60% and 942 are 39.65%",
                "OpenBookQA of OPT-125M is '~~30', which is no figure",
                "OpenBookQA of GPT-2 (124M) is '~32%', which is no figure",
                "ARC-Easy of MTLM1-200M is both 38.64% and 39.64%",
            ],
        ),
        ("slm-10m", ["z-loss is switched off after 31B tokens, of 25B in all"]),
        (
            "odinnext-138m-instruct",
            ["PIQA of MobileLLM-125M: 65.30% is no share of 1,838 questions: 1,200 are 65.29% and 1,201 are 65.34%"],
        ),
    ],
)
def test_contradictions_of_the_cards_are_found_and_named(name, found):
    assert contradictions(card_of(name)) == found


def test_a_table_of_two_harnesses_is_told_from_one_of_one():
    assert len(card_of("odinnext-138m-instruct").tables[0].harnesses) == 2
    assert card_of("slm-10m").tables[0].harnesses == ("lm-evaluation-harness",)


@pytest.mark.parametrize(
    ("suite", "name", "count"),
    [("mtlm", "mtlm1-200m", 4), ("open-slm", "slm-10m", 1), ("odinnext", "odinnext-138m-instruct", 12)],
)
def test_peers_are_the_figures_of_the_cards(suite, name, count):
    """Of two values of one figure the peers' table has the one of the card's own results, which is tested for."""
    quoted = {}
    for table in card_of(name).tables:
        for row in table.rows:
            for figure, score in zip(table.columns.values(), row.scores, strict=True):
                quoted.setdefault((row.model, figure.replace("Winograd/", "Winograd (SuperGLUE WSC)/")), score)
    table = peer_tables()[suite]
    rows = [row for row in table.rows if row.model in {model for model, _ in quoted}]
    assert len(rows) == count, "open-slm has models of other cards, too"
    for row in rows:
        for figure, score in zip(table.columns.values(), row.scores, strict=True):
            told = quoted.get((row.model, figure))
            assert score == told or (told or "").strip("~%") == (score or "").strip("~%")


def test_an_average_that_is_not_of_its_parts_is_named():
    table = card_of("slm-10m").tables[0]
    (row,) = table.rows
    changed = QuotedTable(
        columns=table.columns,
        weights=table.weights,
        rows=(QuotedRow(model=row.model, harness="", scores=(*row.scores[:-1], "33.38")),),
    )
    assert contradictions(QuotedCard(tables=(changed,))) == ["Avg of SLM-10M is 33.38, its parts give 32.38"]


@pytest.mark.parametrize(
    ("percent", "questions", "fits"),
    [("25.00", 1_172, True), ("25", 1_172, True), ("49", 100, True), ("49.5", 100, False), ("0", 7, True),
     ("100", 7, True), ("101", 7, False), ("14.3", 7, True), ("14.4", 7, False), ("33.33", 3, True)],
)  # fmt: skip
def test_a_share_is_a_count_of_right_answers(percent, questions, fits):
    assert (objection(percent, questions) is None) == fits


def test_every_count_gives_a_share_that_fits_and_is_found_again():
    for right in range(0, 1_173, 7):
        assert objection(f"{100 * right / 1_172:.2f}", 1_172) is None
        assert count_of(right / 1_172, 1_172) == right
    assert count_of(0.3333, 1_172) is None


def test_every_public_benchmark_of_a_suite_has_its_number_of_questions():
    names = {use.display for suite in SUITES.values() for use in (*suite.tasks, *suite.optional) if use.task in FILES}
    assert names - QUESTIONS.keys() == {"TruthfulQA MC2"}
