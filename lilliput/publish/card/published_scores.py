"""Scores of other models that published cards give, as they give them: `peers.json`, by evaluation suite."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from lilliput.publish.card.quoted import QuotedRow, QuotedTable

FILE = Path(__file__).with_name("peers.json")


@cache
def peer_tables() -> dict[str, QuotedTable]:
    """The tables by the name of a suite.

    Digits are kept as they are written: 65.30 claims more than 65.3.
    """
    stored = json.loads(FILE.read_text(encoding="utf-8"), parse_float=str)
    return {suite: _table(**table) for suite, table in stored.items()}


def _table(
    columns: dict[str, str], measured: dict[str, dict[str, str]], peers: list[dict[str, Any]], **weights: Any
) -> QuotedTable:
    """A table; `measured` has the source and the harness of its rows by a short name."""
    rows = (_row(measured[peer["measured"]], **peer) for peer in peers)
    averages = {name: {part: float(one) for part, one in of.items()} for name, of in weights.get("weights", {}).items()}
    return QuotedTable(columns=columns, rows=tuple(rows), weights=averages)


def _row(by: dict[str, str], scores: list[str | None], measured: str, **named: Any) -> QuotedRow:
    return QuotedRow(scores=tuple(scores), source=by["source"], harness=by["harness"], **named)
