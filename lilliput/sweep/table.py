"""The result of a sweep as a table, in Markdown and in the terminal."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rich.table import Table as TerminalTable

from lilliput.base.spec_text import is_written
from lilliput.base.text_units import flops, number
from lilliput.publish.card.markdown import prose
from lilliput.report.table import Column, Table
from lilliput.sweep.axes import label

WIDE = {"steps", "tokens", "positions", "seconds"}
"""Columns that a terminal has no room for; where budgets differ a note says so."""
SHORT = {"parameters": "params"}
"""Headings in a terminal."""


def headline(found: dict[str, Any]) -> str:
    """Return the metric, the number of measurements, and how many of them are done."""
    metric, seeds = found["metric"], len(found["seeds"])
    missing = found["variants"] - found["finished"] - found["failed"]
    parts = [
        f"{found['recipe']}: held-out {metric['name']} in {metric['unit']}, lower is better",
        f"{seeds} seed{'s' if seeds > 1 else ''}",
    ]
    if missing:
        parts.append(f"{missing} of {found['variants']} variants are not trained yet")
    return "; ".join(parts)


def markdown(found: dict[str, Any]) -> str:
    """The whole of `table.md`."""
    lines = ["# Sweep", "", f"{prose(headline(found))}.", "", *_table(found).markdown(), ""]
    return "\n".join([*lines, *(f"- {prose(note)}" for note in footnotes(found)), ""])


def table(found: dict[str, Any]) -> TerminalTable:
    """The same for the terminal, without columns that are wide or say nothing."""
    whole, swept = _table(_brief(found), number), len(found["over"])
    compared = whole.columns[swept:]
    whole_counts = [str(len(found["seeds"]))] * len(found["settings"])
    idle = {column.name for column in compared if column.cells == whole_counts and column.name == "seeds"}
    if len(found["settings"]) == 1 and found["best"]:
        idle |= {"to best ± 95%", "verdict"}
    shown = [replace(one, name=SHORT.get(one.name, one.name)) for one in compared if one.name not in WIDE | idle]
    return replace(whole, columns=[*whole.columns[:swept], *shown]).terminal()


def _table(found: dict[str, Any], parameters: Callable[[int], str] = "{:,}".format) -> Table:
    """The best first; settings without a value last, in the order of the grid."""
    settings = sorted(found["settings"], key=lambda one: float("inf") if one["mean"] is None else one["mean"])

    def column(name: str, cell: Callable[[dict[str, Any]], str], **form: bool) -> Column:
        return Column(name=name, cells=[cell(setting) for setting in settings], **form)

    swept = [  # a part as it is written may be long
        Column(name=label(path, found["over"]), cells=[value_text(one["values"][path]) for one in settings], wraps=True)
        for path in found["over"]
    ]
    counts = ["tokens"]
    if any(setting["positions"] != setting["tokens"] for setting in settings):  # with bags of tokens
        counts.append("positions")
    return Table(
        title=headline(found),
        columns=[
            *swept,
            column("mean ± 95%", lambda one: _estimate("{:.4f}", one)),
            column("to best ± 95%", lambda one: _estimate("{:+.4f}", one["difference"])),
            column("verdict", lambda one: "best" if one["name"] == found["best"] else _verdict(one), is_text=True),
            column("seeds", _seeds),
            column("parameters", lambda one: parameters(one["parameters"])),
            column("steps", lambda one: f"{one['steps']:,}"),
            *(column(count, lambda one, count=count: f"{one[count]:,}") for count in counts),
            column("FLOPs", lambda one: flops(one["operations"])),
            column("seconds", lambda one: "" if one["seconds"] is None else f"{one['seconds']:,.1f}"),
        ],
        best=next((place for place, one in enumerate(settings) if one["name"] == found["best"]), None),
    )


def _brief(found: dict[str, Any]) -> dict[str, Any]:
    """The same with parts named by their type alone, where that tells all values of a field apart."""
    names: dict[str, dict[Any, str]] = {}
    for path in found["over"]:
        values = {setting["values"][path] for setting in found["settings"]}
        brief = {value: value.partition("(")[0] for value in values if isinstance(value, str) and is_written(value)}
        if len({*brief.values()} - {""}) == len(values):
            names[path] = brief
    settings = [
        setting | {"values": {path: names.get(path, {}).get(value, value) for path, value in setting["values"].items()}}
        for setting in found["settings"]
    ]
    return found | {"settings": settings}


def footnotes(found: dict[str, Any]) -> list[str]:
    """Return how to read the table."""
    notes = []
    if len(found["seeds"]) > 1:
        notes.append(
            "Intervals: Student's t over seeds. To the best: mean of the differences seed by seed. Every comparison "
            "has its 95% for itself: of twenty settings that are all alike, one is told apart by chance."
            if len(found["settings"]) > 1
            else "The interval: Student's t over seeds."
        )
    notes += found["notes"]
    notes += _more_seeds(found)
    for setting in found["settings"]:
        notes += [f"{setting['title']}, seed {seed}: {why}." for seed, why in setting["failures"].items()]
    return notes


def _more_seeds(found: dict[str, Any]) -> list[str]:
    """Return what would tell those apart that are not told apart."""
    open_ones = [setting for setting in found["settings"] if setting["told_apart"] is False]
    needed = [setting["seeds_to_tell"] for setting in open_ones]
    if not needed:
        return []
    if all(count is None for count in needed):
        return ["Not told apart: not even a hundred seeds would tell differences as small as these."]
    most = max(count for count in needed if count is not None)
    return [f"Not told apart: if the differences stay as they are, about {most} seeds would tell (--seeds {most})."]


def value_text(value: Any) -> str:
    """A swept value, as short as it tells itself apart."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def half_width(interval: list[float] | None) -> float | None:
    """Half of an interval; None without one."""
    return None if interval is None else (interval[1] - interval[0]) / 2


def _estimate(form: str, value: dict[str, Any] | None) -> str:
    if value is None or value["mean"] is None:
        return ""
    half = half_width(value["interval"])
    return form.format(value["mean"]) + ("" if half is None else f" ± {half:.4f}")


def _seeds(setting: dict[str, Any]) -> str:
    values = setting["seeds"].values()
    there = sum(value is not None for value in values)
    return str(there) if there == len(values) else f"{there} of {len(values)}"


def _verdict(setting: dict[str, Any]) -> str:
    if setting["mean"] is None:
        return "failed" if setting["failures"] else "not trained yet"
    match setting["told_apart"]:
        case True:
            return "worse"
        case False:
            return "not told apart"
        case _:
            return "one seed"
