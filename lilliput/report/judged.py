"""Scores of several models side by side, and a page with their replies to the same prompts."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from lilliput.base.files import write_text
from lilliput.evals.pairwise import WinRate
from lilliput.report.page import render
from lilliput.report.table import Column, Table

SHOWN = 8
"""Prompts of a kind on a page."""
_UNITS = {"tokens of a reply": "{:.1f}"}


def scores_table(names: Sequence[str], scores: Sequence[Sequence[Mapping[str, Any]]]) -> Table:
    """Return one row a figure, and one column a model: its value, and one standard error.

    Args:
        names: of the models.
        scores: of each, as JSON values; a figure that a model lacks stays empty.
    """
    rows = list(dict.fromkeys((score["task"], score["metric"]) for each in scores for score in each))
    found = [{(score["task"], score["metric"]): score for score in each} for each in scores]
    known = {row: next(each[row] for each in found if row in each) for row in rows}
    cells = [[_cell(each.get(row)) for row in rows] for each in found]
    columns = [Column(name=name, cells=each) for name, each in zip(names, cells, strict=True)]
    better = ["higher" if known[row]["higher_is_better"] else "lower" for row in rows]
    chance = ["" if known[row]["chance"] is None else f"{known[row]['chance']:.1%}" for row in rows]
    return Table(
        columns=[
            Column(name="figure", cells=[metric for _, metric in rows], is_text=True, wraps=True),
            *columns,
            Column(name="chance", cells=chance),
            Column(name="better", cells=better, is_text=True),
        ]
    )


def win_rates_table(rates: Sequence[WinRate], judge: str) -> Table:
    """Return one row a model: how often a judge prefers its replies.

    Args:
        rates: at least one.
        judge: name of the judge.
    """

    def told(value: float | None) -> str:
        return "" if value is None else f"{value:.1%}"

    counts = ("questions", "wins", "ties", "losses", "contradictions", "unjudged")
    return Table(
        title=f"preferred to {rates[0].other} by {judge}, asked in both orders",
        columns=[
            Column(name="model", cells=[rate.model for rate in rates], is_text=True),
            Column(name="win rate", cells=[told(rate.value) for rate in rates]),
            Column(
                name="95% interval",
                cells=[" to ".join(map(told, rate.interval)) if rate.interval else "" for rate in rates],
            ),
            *(Column(name=name, cells=[f"{getattr(rate, name):,}" for rate in rates]) for name in counts),
            Column(name="first answer preferred", cells=[told(rate.first) for rate in rates]),
        ],
    )


def write_judged_page(names: Sequence[str], judged: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a page with the table, and replies of each model to the same prompts; whole or not at all.

    Args:
        names: of the models.
        judged: what `Judged.plain` returns, of each.
        path: of the page.
    """
    by_prompt = [{(one["kind"], one["prompt"]): one for one in each["replies"]} for each in judged]
    prompts = list(dict.fromkeys(prompt for each in by_prompt for prompt in each))
    kinds = []
    for kind, group in groupby(prompts, key=lambda prompt: prompt[0]):
        rows = [
            {"prompt": prompt[1], "replies": [_shown(each.get(prompt)) for each in by_prompt]}
            for prompt in list(group)[:SHOWN]
        ]
        kinds.append({"name": kind, "rows": rows})
    facts = {"names": list(names), "kinds": kinds, "table": scores_table(names, [each["scores"] for each in judged])}
    write_text(path, render("judged.html.jinja", facts))


def _shown(reply: Mapping[str, Any] | None) -> dict[str, str]:
    """The text of a reply, and remarks on it."""
    if reply is None:
        return {"text": "", "says": "does not fit the context"}
    remarks = {None: [], True: ["follows"], False: ["does not follow"]}[reply["follows"]]
    remarks = [*remarks, *([] if reply["closed"] else ["does not end"]), *(["loops"] if reply["loops"] else [])]
    return {"text": reply["reply"], "says": ", ".join([*remarks, f"{reply['tokens']} tokens"])}


def _cell(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return ""
    is_share = 0 <= score["value"] <= 1 and "bits" not in score["metric"]
    pattern = _UNITS.get(score["metric"], "{:.1%}" if is_share else "{:.4f}")
    error = "" if score["stderr"] is None else f" ± {pattern.format(score['stderr'])}"
    return f"{pattern.format(score['value'])}{error}"
