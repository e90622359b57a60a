"""A comparison as a page with all curves."""

from pathlib import Path
from typing import Any

from lilliput.base.files import write_text
from lilliput.report.charts import Axis, Chart, Series
from lilliput.report.comparison_table import levels, says
from lilliput.report.page import render


def write_page(found: dict[str, Any], path: Path) -> None:
    """Write a page with the curves over tokens and over time, the table and the notes; whole or not at all."""
    facts = {
        "corpus": found["corpus"],
        "names": [run["name"] for run in found["runs"]],
        "says": says(found),
        "notes": found["notes"],
        "table": levels(found),
        "charts": [
            _chart(found, "tokens", "Over tokens", "text tokens"),
            _chart(found, "seconds", "Over time", "seconds in training steps"),
        ],
    }
    write_text(path, render("compare.html.jinja", facts))


def _chart(found: dict[str, Any], what: str, title: str, across: str) -> Chart:
    return Chart(
        key=what,
        title=title,
        x=Axis(label=across, logarithmic=True),
        y=Axis(label=f"held-out {found['corpus']}, {found['unit']}; log axis of {what}"),
        series=[
            Series(
                name=run["name"],
                x=[point[what] for point in run["points"]],
                y=[point["value"] for point in run["points"]],
                steps=[point["step"] for point in run["points"]],
                color=color,
                style="dots",
            )
            for color, run in enumerate(found["runs"])
        ],
        levels=[other["levels"][0]["value"] for other in found["against"]],
    )
