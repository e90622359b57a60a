"""A leaderboard as a table, and as a page with the score over operations and over parameters."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lilliput.base.files import write_text
from lilliput.base.text_units import flops
from lilliput.report.charts import Axis, Chart, Series, short
from lilliput.report.page import render
from lilliput.report.table import Column, Table

Entries = Sequence[Mapping[str, Any]]
"""Entries of `lilliput.run.leaderboard`, as JSON values."""


def leaderboard_table(found: Mapping[str, Any]) -> Table:
    """The table of a leaderboard, `Leaderboard.plain`."""
    entries = found["entries"]
    return Table(
        title=f"{found['score']}, with its 95% interval",
        columns=[
            Column(name="model", cells=[one["name"] for one in entries], is_text=True, wraps=True),
            Column(name="score", cells=[_value(one, one["value"]) for one in entries]),
            Column(name="95%", cells=[_interval(one) for one in entries]),
            Column(name="parameters", cells=[short(one["parameters"]) for one in entries]),
            Column(name="tokens", cells=[short(one["tokens"]) for one in entries]),
            Column(name="FLOPs", cells=[_operations(one) for one in entries]),
            Column(name="suite", cells=[one["suite"] for one in entries], is_text=True),
        ],
    )


def says(found: Mapping[str, Any]) -> list[str]:
    """Sentences on what the entries have in common, and what not."""
    entries = found["entries"]
    harnesses, suites = (list(dict.fromkeys(one[key] for one in entries)) for key in ("harness", "suite"))
    lines = [f"measured with {', '.join(harnesses)}; suite{'s' if len(suites) > 1 else ''} {', '.join(suites)}"]
    if len(harnesses) > 1:
        lines.append("this table mixes versions of the harness: a difference may be one between them")
    if found["left_out"]:
        lines.append(f"without {found['score']}: {', '.join(found['left_out'])}")
    if any(one["operations"] is None for one in entries):
        lines.append("FLOPs are unknown where a recipe has types that are not installed here")
    return lines


def write_leaderboard(found: Mapping[str, Any], path: Path) -> None:
    """Write a page with the table and the charts, whole or not at all.

    Args:
        found: `Leaderboard.plain`.
        path: of the page.
    """
    facts = {
        "score": found["score"],
        "says": says(found),
        "table": leaderboard_table(found),
        "charts": [
            _chart(found, "operations", "Score over compute", "floating-point operations of training, log axis"),
            _chart(found, "parameters", "Score over size", "parameters, log axis"),
        ],
    }
    write_text(path, render("leaderboard.html.jinja", facts))


def _chart(found: Mapping[str, Any], what: str, title: str, across: str) -> Chart:
    entries = [one for one in found["entries"] if one[what] is not None]
    scale = 100 if all(one["is_share"] for one in entries) else 1
    ends = [scale * (one["value"] + sign * (one["half_width"] or 0)) for one in entries for sign in (-1, 1)]
    return Chart(
        key=what,
        title=title,
        x=Axis(label=across, logarithmic=True),
        y=Axis(label=f"{found['score']}{', in percent' if scale == 100 else ''}, with 95% intervals", includes=ends),
        series=[
            Series(
                name=one["name"],
                x=[one[what]],
                y=[scale * one["value"]],
                half_widths=[scale * (one["half_width"] or 0)],
                color=color,
                style="dots",
            )
            for color, one in enumerate(entries)
        ],
    )


def _value(entry: Mapping[str, Any], value: float) -> str:
    return f"{100 * value:.2f}" if entry["is_share"] else f"{value:.4f}"


def _interval(entry: Mapping[str, Any]) -> str:
    if entry["half_width"] is None:
        return ""
    low, high = (_value(entry, entry["value"] + sign * entry["half_width"]) for sign in (-1, 1))
    return f"{low} to {high}"


def _operations(entry: Mapping[str, Any]) -> str:
    return "" if entry["operations"] is None else flops(entry["operations"])
