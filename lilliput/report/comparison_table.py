"""A comparison as a table and in sentences, for the page and for a terminal."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lilliput.report.page import duration
from lilliput.report.scale import short


def table(found: dict[str, Any]) -> Table:
    """The table for a terminal, of 80 columns at most: intervals stand below their ratios."""
    names = [f"{place}: {run['name']}" for place, run in enumerate(found["runs"], 1)]
    made = Table(title="\n".join([f"held-out {found['corpus']}", *names]), title_justify="left")
    made.box, made.pad_edge, made.collapse_padding = SIMPLE_HEAD, False, True
    for heading in headings(found):
        made.add_column(heading.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for row in rows(found):
        made.add_row(*(cell.replace(" (", "\n(") for cell in row))
    return made


def headings(found: dict[str, Any]) -> list[str]:
    """The first row of the table: of two runs by their numbers, of more with the number of the other run in front."""
    if len(found["against"]) == 1:
        return ["bits/byte", "tokens of 1", "tokens of 2", "ratio", "time of 1", "time of 2", "ratio"]
    return ["run", "bits/byte", "tokens of 1", "its tokens", "ratio", "time of 1", "its time", "ratio"]


def rows(found: dict[str, Any]) -> list[list[str]]:
    """The others: of two runs all levels, of more the lowest that each of them and the first came to."""
    if len(found["against"]) == 1:
        return [_cells(level) for level in found["against"][0]["levels"]]
    return [[str(place), *_cells(other["levels"][0])] for place, other in enumerate(found["against"], 2)]


def says(found: dict[str, Any]) -> list[str]:
    """The result in sentences, one for each of the others."""
    return [other["says"] for other in found["against"]]


def _cells(level: dict[str, Any]) -> list[str]:
    """The level, and what both spent to reach it, in tokens and in time."""
    tokens, seconds = level["tokens"], level["seconds"]
    return [
        f"{level['value']:.4f}",
        *(_spent(one, short) for one in tokens["spent"]),
        _ratio(tokens),
        *(_spent(one, duration) for one in seconds["spent"]),
        _ratio(seconds),
    ]


def _spent(amount: float | None, shown: Any) -> str:
    return "not seen" if amount is None else shown(amount)


def _ratio(found: dict[str, Any]) -> str:
    if found["ratio"] is None:
        return ""
    if found["interval"] is None:
        return f"{found['ratio']:.2f}"
    low, high = ("..." if end is None else f"{end:.2f}" for end in found["interval"])
    return f"{found['ratio']:.2f} ({low}–{high})"
