"""The result of a sweep as a picture."""

import math
from dataclasses import replace
from itertools import pairwise
from statistics import median_low
from typing import Any

from lilliput.report.chart_png import chart_png
from lilliput.report.charts import Axis, Chart, Series
from lilliput.sweep.axes import label
from lilliput.sweep.table import half_width, value_text

SIZE = 1200, 800
APART = 0.012
"""Share of the axis between two lines at one place; the seeds are half of it beside their mean."""
NARROW = 0.06
"""Share of the axis below which two labels have no room beside each other."""


def picture(found: dict[str, Any]) -> bytes:
    """A PNG of 1200 x 800: a line over one swept number, lines for a second field, or all settings in order."""
    paths = list(found["over"])
    measured = [setting for setting in found["settings"] if setting["mean"] is not None]
    numeric = [path for path in paths if all(_is_number(setting["values"][path]) for setting in found["settings"])]
    is_over_numbers = bool(numeric and len(paths) <= 2 and measured)
    x, series = _lines(measured, paths, numeric[0]) if is_over_numbers else _ranking(measured)
    y = Axis(label=_measure(found), includes=_ends(measured, _limit(measured)))
    chart = Chart(key="sweep", title=_title(found), x=x, y=y, series=series)
    if any(not 0 <= chart.top(end) <= 100 for end in _ends(measured)):
        chart = replace(chart, title=f"{chart.title}; arrows: it goes on")
    return chart_png(chart, *SIZE, sideways=not is_over_numbers)


def _lines(settings: list[dict[str, Any]], paths: list[str], across: str) -> tuple[Axis, list[Series]]:
    """A line over a number, for each value of the other field if there is one."""
    by = next((path for path in paths if path != across), None)
    groups: dict[Any, list[dict[str, Any]]] = {}
    for setting in settings:
        groups.setdefault(by and setting["values"][by], []).append(setting)
    series = []
    for color, (value, group) in enumerate(groups.items()):
        group.sort(key=lambda setting: setting["values"][across])
        series += _series(
            group,
            [setting["values"][across] for setting in group],
            -APART / 2,
            name=f"{label(by, paths)} = {value_text(value)}" if by else "",
            color=color,
            style="dots",
            shift=APART * (color - (len(groups) - 1) / 2),
        )
    places = sorted({setting["values"][across] for setting in settings})
    axis = Axis(label=across, logarithmic=places[0] > 0 and places[-1] >= 10 * places[0])
    at = [axis.scale(places).place(place) for place in places]
    fit = all(after - before > NARROW for before, after in pairwise(at))
    return replace(axis, names={place: value_text(place) for place in places} if fit else None), series


def _ranking(settings: list[dict[str, Any]]) -> tuple[Axis, list[Series]]:
    """A place for each setting, the best first."""
    ranked = sorted(settings, key=lambda setting: setting["mean"])
    names = {float(place): setting["title"] for place, setting in enumerate(ranked)}
    axis = Axis(label="", room=0.0, includes=[-0.6, len(ranked) - 0.4], names=names)
    beside = min(APART, 0.2 / max(1, len(ranked)))
    return axis, _series(ranked, list(names), beside, name="", style="single")


def _series(settings: list[dict[str, Any]], x: list[float], beside: float, **look: Any) -> list[Series]:
    """The means with their intervals, and the single values beside them."""
    halves = list(map(_half, settings))
    means = Series(x=x, y=[setting["mean"] for setting in settings], half_widths=halves, **look)
    seeds = [(at, value) for at, setting in zip(x, settings, strict=True) for value in _seeds(setting)]
    there, values = [at for at, _ in seeds], [value for _, value in seeds]
    shift = means.shift + beside
    return [means, replace(means, name="", x=there, y=values, half_widths=(), style="seeds", shift=shift)]


def _limit(settings: list[dict[str, Any]]) -> float:
    """The longest half of an interval that must fit: a longer one would squeeze the others into a few dots."""
    values = [value for setting in settings for value in (setting["mean"], *_seeds(setting))]
    halves = list(map(_half, settings))
    return max(1.2 * (max(values) - min(values)), 3 * median_low(halves)) if values else 0.0


def _ends(settings: list[dict[str, Any]], limit: float = math.inf) -> list[float]:
    """Both ends of each interval, no farther from its mean than a limit."""
    return [one["mean"] + side * min(_half(one), limit) for one in settings for side in (-1, 1)]


def _seeds(setting: dict[str, Any]) -> list[float]:
    """The single values behind a mean, where there are several."""
    values = [value for value in setting["seeds"].values() if value is not None]
    return values if len(values) > 1 else []


def _half(setting: dict[str, Any]) -> float:
    return half_width(setting["interval"]) or 0.0


def _measure(found: dict[str, Any]) -> str:
    metric = found["metric"]
    return f"held-out {metric['corpus']} after {metric['phase']}, {metric['unit']} (lower is better)"


def _title(found: dict[str, Any]) -> str:
    seeds = len(found["seeds"])
    about = f"mean of {seeds} seeds, bars: 95% confidence intervals" if seeds > 1 else "one seed, no intervals"
    done = "" if found["finished"] == found["variants"] else f"; {found['finished']} of {found['variants']} variants"
    return f"{found['recipe']}: held-out {found['metric']['name']}\n{about}{done}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
