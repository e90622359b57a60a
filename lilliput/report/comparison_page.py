"""A comparison as a page with all curves."""

from pathlib import Path
from typing import Any

from lilliput.base.files import write_text
from lilliput.report.charts import Chart, Curve
from lilliput.report.comparison_table import headings, rows, says
from lilliput.report.page import render


def write_page(found: dict[str, Any], path: Path) -> None:
    """Write a page with the curves over tokens and over time, the table and the notes; whole or not at all."""
    facts = {
        "corpus": found["corpus"],
        "names": [run["name"] for run in found["runs"]],
        "says": says(found),
        "notes": found["notes"],
        "headings": headings(found),
        "rows": rows(found),
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
        lines=[("equal", other["levels"][0]["value"]) for other in found["against"]],
        x_logarithmic=True,
    )
