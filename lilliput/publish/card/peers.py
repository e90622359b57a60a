"""This release beside other models: figures that others published, and earlier releases of the same run."""

from collections.abc import Mapping
from string import ascii_lowercase
from typing import Any

from lilliput.publish.card.markdown import NOTHING
from lilliput.publish.card.published_scores import peer_tables
from lilliput.publish.card.quoted import QuotedCard, contradictions
from lilliput.publish.card.record import Part

OWN = "this run"
"""In the column of companies."""
HARNESS = "lm-evaluation-harness"


def peers(run: Part, tokens: str) -> dict[str, Any] | None:
    """The table of the release's suite; None if there are no peers.

    Args:
        run: the record.
        tokens: of this release's training, in words.
    """
    table = peer_tables().get(run["release"]["suite"])
    ours = None if table is None else _row(run["evaluation"].plain, table.columns)
    if table is None or ours is None:
        return None
    here = f"this card; {HARNESS} {run['evaluation']['versions']['lm_eval']}"
    rows = [
        (
            one.company,
            one.model,
            one.tokens or NOTHING,
            [_percent(score) for score in one.scores],
            f"{one.source}; {one.harness}",
        )
        for one in table.rows
    ]
    for earlier in run.plain.get("earlier", []):
        if scores := _row(earlier["evaluation"], table.columns):
            rows.append((OWN, earlier["name"], f"{earlier['tokens']:,}", scores, here))
    own = (OWN, run["release"]["name"], tokens, ours, here)
    letters = dict(zip(dict.fromkeys(row[-1] for row in (*rows, own)), ascii_lowercase, strict=False))
    return {
        "columns": list(table.columns),
        "rows": [(*row[:-1], letters[row[-1]]) for row in rows],
        "own": (*own[:-1], letters[here]),
        "measured": [(letter, by) for by, letter in letters.items()],
        "harnesses": list(dict.fromkeys((HARNESS, *table.harnesses))),
        "contradictions": contradictions(QuotedCard(tables=(table,))),
    }


def _row(evaluation: dict[str, Any], columns: Mapping[str, str]) -> list[str] | None:
    """Our scores under the columns; None where none was measured."""
    values = {f"{score['task']}/{score['metric']}": score["value"] for score in evaluation["scores"]}
    values |= {average["name"]: average["value"] for average in evaluation["averages"]}
    found = [values.get(key) for key in columns.values()]
    shown = [NOTHING if one is None else f"{100 * one:.2f}" for one in found]
    return None if found == [None] * len(found) else shown


def _percent(score: str | None) -> str:
    return NOTHING if score is None else score
