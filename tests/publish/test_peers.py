"""Scores of other models: each is somebody's, once, under a figure that we measure too."""

import json
import re

import pytest

from lilliput.evals.suites import named
from lilliput.publish.card.published_scores import FILE, peer_tables
from lilliput.publish.card.quoted import QuotedCard, contradictions


def test_the_file_has_these_fields_and_no_others():
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    assert set(stored) == {"odinnext", "mtlm", "open-slm"}
    for table in stored.values():
        assert set(table) - {"weights"} == {"measured", "columns", "peers"}
        assert all(set(by) == {"source", "harness"} and all(by.values()) for by in table["measured"].values())
        for peer in table["peers"]:
            assert set(peer) - {"parameters"} == {"company", "model", "tokens", "measured", "scores"}


@pytest.mark.parametrize("suite", peer_tables())
def test_rows_are_whole_and_each_model_is_there_once(suite):
    table = peer_tables()[suite]
    names = [row.model.casefold() for row in table.rows]
    assert len(set(names)) == len(names) and all(row.company and row.source and row.harness for row in table.rows)
    for row in table.rows:
        assert len(row.scores) == len(table.columns)
        for score in row.scores:
            assert score is None or re.fullmatch(r"~?\d+(\.\d+)?", score)
            assert score is None or 0 < float(score.strip("~")) < 100


@pytest.mark.parametrize("suite", peer_tables())
def test_every_column_is_a_figure_of_the_suite(suite):
    asked = named(suite)
    uses = (*asked.tasks, *asked.optional, *asked.made)
    known = {f"{use.display}/{metric}" for use in uses for metric in use.metrics}
    known |= {average.name for average in asked.averages}
    assert set(peer_tables()[suite].columns.values()) <= known


def test_averages_of_the_cards_follow_from_their_scores():
    hellaswag, easy, challenge, piqa, arithmark, average = map(float, peer_tables()["open-slm"].rows[0].scores)
    assert peer_tables()["open-slm"].rows[0].model == "SLM-10M"
    assert (hellaswag + (easy + challenge) / 2 + piqa + arithmark) / 4 == pytest.approx(average, abs=0.005)
    assert contradictions(QuotedCard(tables=(peer_tables()["open-slm"],))) == []
