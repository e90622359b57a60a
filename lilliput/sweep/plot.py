"""The result of a sweep as a picture."""

import math
from io import BytesIO
from itertools import pairwise
from statistics import median_low
from typing import Any

from lilliput.report.loss_plot import lettering
from lilliput.sweep.axes import label

DOTS = 150
"""To an inch; 8 x 5.33 inches make 1200 x 800."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999933")
"""Told apart by colour-blind eyes too (Okabe and Ito); markers differ besides."""
MARKERS = "osD^vPX*"
APART = 0.012
"""Share of the axis between two lines at one place; the seeds are half of it beside their mean."""


def picture(found: dict[str, Any]) -> bytes:
    """A PNG of 1200 x 800: a line over one swept number, lines for a second field, or all settings in order."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    paths = list(found["over"])
    measured = [setting for setting in found["settings"] if setting["mean"] is not None]
    figure = Figure(figsize=(8, 800 / DOTS), dpi=DOTS, layout="constrained")
    axes = figure.subplots()
    numeric = [path for path in paths if all(_is_number(setting["values"][path]) for setting in found["settings"])]
    if numeric and len(paths) <= 2 and measured:
        others = [path for path in paths if path != numeric[0]]
        _lines(axes, measured, paths, numeric[0], others[0] if others else None)
        axes.set_ylabel(lettering(_measure(found)))
    else:
        _dots(axes, measured)
        axes.set_xlabel(lettering(_measure(found)))
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(lettering(_title(found)), loc="left", fontsize=11)
    written = BytesIO()
    figure.savefig(written, format="png", metadata={"Software": None})
    return written.getvalue()


def _lines(axes: Any, settings: list[dict[str, Any]], paths: list[str], across: str, by: str | None) -> None:
    groups: dict[Any, list[dict[str, Any]]] = {}
    limit = _limit(settings)
    for setting in settings:
        groups.setdefault(None if by is None else setting["values"][by], []).append(setting)
    places = sorted({setting["values"][across] for setting in settings})
    if places[0] > 0 and places[-1] >= 10 * places[0]:
        axes.set_xscale("log")
    for number, (value, group) in enumerate(groups.items()):
        group.sort(key=lambda setting: setting["values"][across])
        shift = APART * (number - (len(groups) - 1) / 2)
        x = [_beside(places, setting["values"][across], shift, axes.get_xscale()) for setting in group]
        halves = [min(_half(setting), limit) for setting in group]
        axes.errorbar(
            x,
            [setting["mean"] for setting in group],
            yerr=halves,
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            markersize=6,
            capsize=4,
            linewidth=1.5,
            label=None if by is None else lettering(f"{label(by, paths)} = {_shown(value)}"),
        )
        for place, half, setting in zip(x, halves, group, strict=True):
            if _half(setting) > limit:
                ends = [setting["mean"] - half, setting["mean"] + half]
                _arrows(axes, [place] * 2, ends, "v^", COLOURS[number % len(COLOURS)])
        for setting in group:
            place = _beside(places, setting["values"][across], shift - APART / 2, axes.get_xscale())
            values = _seeds(setting)
            axes.plot([place] * len(values), values, ".", color=COLOURS[number % len(COLOURS)], alpha=0.5)
    if _fit(places, axes.get_xscale() == "log"):
        axes.set_xticks(places, [_shown(place) for place in places])
        axes.set_xticks([], minor=True)
    axes.set_xlabel(lettering(across))
    if by is not None:
        axes.legend(frameon=False)


def _dots(axes: Any, settings: list[dict[str, Any]]) -> None:
    """One line a setting, the best on top."""
    ranked = sorted(settings, key=lambda setting: setting["mean"], reverse=True)
    limit = _limit(settings)
    below = min(0.2, 0.02 * len(ranked))
    for place, setting in enumerate(ranked):
        half, values = min(_half(setting), limit), _seeds(setting)
        if _half(setting) > limit:
            _arrows(axes, [setting["mean"] - half, setting["mean"] + half], [place] * 2, "<>", COLOURS[0])
        axes.errorbar(setting["mean"], place, xerr=half, color=COLOURS[0], marker="o", markersize=6, capsize=4)
        axes.plot(values, [place - below] * len(values), ".", color=COLOURS[0], alpha=0.5)
    names = [lettering(setting["title"]) for setting in ranked]
    axes.set_yticks(range(len(ranked)), names, fontsize=9 if len(ranked) < 25 else 6)
    axes.set_ylim(-0.6, len(ranked) - 0.4)


def _limit(settings: list[dict[str, Any]]) -> float:
    """The longest half of an interval that is drawn whole: a longer one would squeeze the others into a few dots."""
    values = [value for setting in settings for value in (setting["mean"], *_seeds(setting))]
    halves = [_half(setting) for setting in settings]
    return max(1.2 * (max(values) - min(values)), 3 * median_low(halves)) if values else 0.0


def _arrows(axes: Any, x: list[float], y: list[float], markers: str, color: str) -> None:
    """Both ends of an interval that goes on."""
    for place, value, marker in zip(x, y, markers, strict=True):
        axes.plot([place], [value], marker, color=color, markersize=7)


def _beside(places: list[float], place: float, share: float, scale: str) -> float:
    """A place moved by a share of the axis, so that marks at one place are seen side by side."""
    if scale == "log":
        return place * (places[-1] / places[0]) ** share
    return place + share * (places[-1] - places[0])


def _fit(places: list[float], logarithmic: bool) -> bool:
    """Whether labels of all places have room."""
    x = [math.log(place) if logarithmic else place for place in places]
    gaps = [after - before for before, after in pairwise(x)]
    return all(gap > 0.07 * (x[-1] - x[0]) for gap in gaps)


def _seeds(setting: dict[str, Any]) -> list[float]:
    """The single values behind a mean, where there are several."""
    values = [value for value in setting["seeds"].values() if value is not None]
    return values if len(values) > 1 else []


def _half(setting: dict[str, Any]) -> float:
    return 0.0 if setting["interval"] is None else (setting["interval"][1] - setting["interval"][0]) / 2


def _measure(found: dict[str, Any]) -> str:
    metric = found["metric"]
    return f"held-out {metric['corpus']} after {metric['phase']}, {metric['unit']} (lower is better)"


def _title(found: dict[str, Any]) -> str:
    seeds = len(found["seeds"])
    about = f"mean of {seeds} seeds, bars: 95% confidence intervals" if seeds > 1 else "one seed, no intervals"
    done = "" if found["finished"] == found["variants"] else f"; {found['finished']} of {found['variants']} variants"
    measured = [setting for setting in found["settings"] if setting["mean"] is not None]
    cut = "; arrows: it goes on" if any(_half(setting) > _limit(measured) for setting in measured) else ""
    return f"{found['recipe']}: held-out {found['metric']['name']}\n{about}{cut}{done}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
