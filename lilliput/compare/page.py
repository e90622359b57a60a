"""A comparison for people: the cells of its table, and a page with both curves."""

from pathlib import Path
from typing import Any

from lilliput.base.files import write_text
from lilliput.report.chart import Chart, Curve
from lilliput.report.page import duration, render
from lilliput.report.scale import short


def cells(level: dict[str, Any]) -> list[str]:
    """A row: the level, and what both spent to reach it, in tokens and in time."""
    tokens, seconds = level["tokens"], level["seconds"]
    return [
        f"{level['value']:.4f}",
        *(_spent(one, short) for one in tokens["spent"]),
        _ratio(tokens),
        *(_spent(one, duration) for one in seconds["spent"]),
        _ratio(seconds),
    ]


def write_page(found: dict[str, Any], path: Path) -> None:
    """Write a page with the curves over tokens and over time, the table and the notes; whole or not at all."""
    facts = {
        "corpus": found["corpus"],
        "names": [run["name"] for run in found["runs"]],
        "says": found["says"],
        "notes": found["notes"],
        "rows": [cells(level) for level in found["levels"]],
        "charts": [
            _chart(found, "tokens", "Over tokens", "text tokens").drawn(),
            _chart(found, "seconds", "Over time", "seconds in training steps").drawn(),
        ],
    }
    write_text(path, render("compare.html.jinja", facts))


def _chart(found: dict[str, Any], what: str, title: str, across: str) -> Chart:
    return Chart(
        key=what,
        title=title,
        unit=f"held-out {found['corpus']}, {found['unit']}; log axis of {what}",
        across=across,
        curves=[
            Curve(
                name=run["name"],
                x=[point[what] for point in run["points"]],
                y=[point["value"] for point in run["points"]],
                steps=[point["step"] for point in run["points"]],
                style="dots",
            )
            for run in found["runs"]
        ],
        lines=[("equal", found["levels"][0]["value"])],
        x_logarithmic=True,
    )


def _spent(amount: float | None, shown: Any) -> str:
    return "not seen" if amount is None else shown(amount)


def _ratio(found: dict[str, Any]) -> str:
    if found["ratio"] is None:
        return ""
    if found["interval"] is None:
        return f"{found['ratio']:.2f}"
    low, high = ("..." if end is None else f"{end:.2f}" for end in found["interval"])
    return f"{found['ratio']:.2f} ({low}–{high})"
