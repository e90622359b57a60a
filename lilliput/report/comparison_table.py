"""A comparison as a table and in sentences, for the page and for a terminal."""

from collections.abc import Callable
from typing import Any

from rich.table import Table as TerminalTable

from lilliput.base.text_units import duration
from lilliput.report.charts import short
from lilliput.report.table import Column, Table


def table(found: dict[str, Any]) -> TerminalTable:
    """The table for a terminal, of 80 columns at most."""
    return levels(found).terminal()


def levels(found: dict[str, Any]) -> Table:
    """Return what was spent to equal bits per byte: intervals stand below their ratios.

    Of two runs all levels, of more the lowest that each of them and the first came to, by the number of the other run.
    """
    names = [f"{place}: {run['name']}" for place, run in enumerate(found["runs"], 1)]
    first, *others = found["against"]
    if others:
        headings = ["run", "bits/byte", "tokens\nof 1", "its\ntokens", "ratio", "time\nof 1", "its\ntime", "ratio"]
        rows = [[str(place), *_cells(other["levels"][0])] for place, other in enumerate(found["against"], 2)]
    else:
        headings = ["bits/byte", "tokens\nof 1", "tokens\nof 2", "ratio", "time\nof 1", "time\nof 2", "ratio"]
        rows = [_cells(level) for level in first["levels"]]
    return Table(
        title="\n".join([f"held-out {found['corpus']}", *names]),
        columns=[Column(name=name, cells=cells) for name, *cells in zip(headings, *rows, strict=True)],
    )


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


def _spent(amount: float | None, shown: Callable[[float], str]) -> str:
    return "not seen" if amount is None else shown(amount)


def _ratio(found: dict[str, Any]) -> str:
    if found["ratio"] is None:
        return ""
    if found["interval"] is None:
        return f"{found['ratio']:.2f}"
    low, high = ("..." if end is None else f"{end:.2f}" for end in found["interval"])
    return f"{found['ratio']:.2f}\n({low}–{high})"
