"""The result of a sweep as a table, in Markdown and in the terminal."""

from collections.abc import Callable
from typing import Any

from rich import box
from rich.table import Table

from lilliput.base.spec_text import is_written
from lilliput.base.text_units import flops, number
from lilliput.publish.card.markdown import prose
from lilliput.sweep.axes import label

COLUMNS = (
    *("mean ± 95%", "to best ± 95%", "verdict", "seeds", "parameters", "steps", "tokens", "FLOPs"),
    "seconds",
)
WIDE = ("steps", "tokens", "seconds")
"""Columns that a terminal has no room for; where budgets differ a note says so."""
SHORT = {"parameters": "params"}
"""Headings in a terminal."""


def headline(found: dict[str, Any]) -> str:
    """What was measured, how often, and how much of it is there."""
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
    names = [*(prose(name) for name in _labels(found)), *COLUMNS]
    rule = ["---" if name == "verdict" else "--:" for name in names]
    rows = [names, rule, *([prose(text) for text in row] for row in _rows(found))]
    lines = ["# Sweep", "", f"{prose(headline(found))}.", "", *(f"| {' | '.join(row)} |" for row in rows), ""]
    return "\n".join([*lines, *(f"- {prose(note)}" for note in footnotes(found)), ""])


def table(found: dict[str, Any]) -> Table:
    """The same for the terminal."""
    labels = _labels(found)
    names, rows = [*labels, *COLUMNS], _rows(_brief(found), parameters=number)
    idle = _idle(found, rows, len(labels))
    shown = [place for place, name in enumerate(names) if name not in (*WIDE, *idle)]
    made = Table(
        title=headline(found), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    for place in shown:
        swept = place < len(labels)  # a part as it is written may be long
        made.add_column(
            SHORT.get(names[place], names[place]),
            justify="left" if names[place] == "verdict" else "right",
            no_wrap=not swept,
            overflow="fold" if swept else "ellipsis",
        )
    for row in rows:
        made.add_row(*(row[place] for place in shown), style="bold" if "best" in row else None)
    return made


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


def _idle(found: dict[str, Any], rows: list[list[str]], labels: int) -> set[str]:
    """Columns that say nothing: the seeds of settings that all have theirs, and what compares a single setting."""
    seeds = {row[labels + COLUMNS.index("seeds")] for row in rows}
    alone = {"to best ± 95%", "verdict"} if len(rows) == 1 and found["best"] else set()
    return alone | ({"seeds"} if seeds == {str(len(found["seeds"]))} else set())


def footnotes(found: dict[str, Any]) -> list[str]:
    """How to read the table."""
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
    """What would tell those apart that are not told apart."""
    open_ones = [setting for setting in found["settings"] if setting["told_apart"] is False]
    needed = [setting["seeds_to_tell"] for setting in open_ones]
    if not needed:
        return []
    if all(count is None for count in needed):
        return ["Not told apart: not even a hundred seeds would tell differences as small as these."]
    most = max(count for count in needed if count is not None)
    return [f"Not told apart: if the differences stay as they are, about {most} seeds would tell (--seeds {most})."]


def _labels(found: dict[str, Any]) -> list[str]:
    return [label(path, found["over"]) for path in found["over"]]


def _rows(found: dict[str, Any], parameters: Callable[[int], str] = "{:,}".format) -> list[list[str]]:
    """The best first; settings without a value last, in the order of the grid."""
    settings = sorted(found["settings"], key=lambda one: float("inf") if one["mean"] is None else one["mean"])
    return [_row(setting, setting["name"] == found["best"], parameters) for setting in settings]


def _row(setting: dict[str, Any], is_best: bool, parameters: Callable[[int], str]) -> list[str]:
    values = setting["seeds"].values()
    there = sum(value is not None for value in values)
    difference = setting["difference"]
    return [
        *(f"{value:g}" if isinstance(value, float) else str(value) for value in setting["values"].values()),
        "" if setting["mean"] is None else f"{setting['mean']:.4f}{_half(setting['interval'])}",
        "" if difference is None else f"{difference['mean']:+.4f}{_half(difference['interval'])}",
        "best" if is_best else _verdict(setting),
        str(there) if there == len(values) else f"{there} of {len(values)}",
        parameters(setting["parameters"]),
        f"{setting['steps']:,}",
        f"{setting['tokens']:,}",
        flops(setting["operations"]),
        "" if setting["seconds"] is None else f"{setting['seconds']:,.1f}",
    ]


def _half(interval: list[float] | None) -> str:
    return "" if interval is None else f" ± {(interval[1] - interval[0]) / 2:.4f}"


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
