"""From the metrics of a phase to its charts: which curves there are, in which units, and how long ones are thinned."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean

from lilliput.report.charts import Chart, Curve, Mark
from lilliput.report.records import PhaseRecord
from lilliput.train.metrics_file import LIVE, WINDOW, Line

MOST = 600
"""Points of a curve at most: longer ones have one for several steps, their mean, or the largest where peaks matter."""
ROLES = "grad_norm/"
SKIPS_SHOWN = 60
"""Marks of skipped steps at most, the last ones."""


def charts(key: str, phase: PhaseRecord, units: Mapping[str, str]) -> list[Chart]:
    """The charts of a phase, those for which there are numbers.

    Args:
        key: of the phase, unique on the page.
        phase: its steps, its measurements and what happened to it.
        units: of held-out numbers, by corpus.
    """
    steps = phase.steps
    if not steps:
        return []
    marks, window = _marks(steps, phase.incidents), max(2, min(WINDOW, len(steps) // 20))
    found = [
        Chart(
            key=f"{key}-loss",
            title="Training loss",
            unit="nats per target token",
            curves=[
                _curve(steps, "cross_entropy", "each step" if len(steps) <= MOST else "mean of each point", "faint"),
                _smooth(steps, "cross_entropy", window),
            ],
            marks=marks,
            steady=0.02,
        ),
        *_heldout(key, steps, phase.measured, units, marks),
        Chart(
            key=f"{key}-gradient",
            title="Gradient norm",
            unit="l2 norm before clipping, log axis",
            curves=[
                _curve(steps, name, "all" if name == "grad_norm" else name.removeprefix(ROLES), "line", max)
                for name in ["grad_norm", *_names(steps, ROLES)]
            ],
            marks=marks,
            logarithmic=True,
        ),
        Chart(
            key=f"{key}-rate",
            title="Learning rate",
            unit="share of its peak",
            curves=[_curve(steps, "lr", "all groups")],
            marks=marks,
            from_zero=True,
        ),
        Chart(
            key=f"{key}-speed",
            title="Throughput",
            unit=f"tokens per second, mean of {WINDOW} steps",
            curves=[_curve(steps, "tokens_per_second", "tokens per second")],
            marks=marks,
            from_zero=True,
        ),
        _scaled(key, steps, "peak_memory", "Memory", "GB, the most so far", marks, 1e-9),
        _scaled(key, steps, "loss_scale", "Loss scale", "factor of the loss under fp16, log axis", marks),
        _scaled(key, steps, "headroom", "Headroom", "65,504 over the largest activation, log axis", marks),
    ]
    return [chart for chart in found if chart is not None and any(len(curve.x) for curve in chart.curves)]


def thin(values: Sequence[float], summary: Callable[[Sequence[float]], float], most: int = MOST) -> list[float]:
    """At most `most` values, each of an equal run of neighbours; all as they are where they are few."""
    if len(values) <= most:
        return list(values)
    bounds = [round(place * len(values) / most) for place in range(most + 1)]
    return [summary(values[low:high]) for low, high in pairwise(bounds)]


def _curve(
    steps: list[Line],
    name: str,
    shown: str,
    style: str = "line",
    summary: Callable[[Sequence[float]], float] = fmean,
    factor: float = 1.0,
) -> Curve:
    here = [line for line in steps if name in line]
    return Curve(
        name=shown,
        x=thin([line["tokens"] for line in here], _last),
        y=thin([line[name] * factor for line in here], summary),
        steps=[int(step) for step in thin([line["step"] for line in here], _last)],
        style=style,
    )


def _smooth(steps: list[Line], name: str, window: int) -> Curve:
    """The mean of the last `window` steps at each."""
    values, total, means = [line[name] for line in steps], 0.0, []
    for place, value in enumerate(values):
        total += value - (values[place - window] if place >= window else 0.0)
        means.append(total / min(place + 1, window))
    smoothed = [line | {name: mean} for line, mean in zip(steps, means, strict=True)]
    return _curve(smoothed, name, f"mean of {window} steps", summary=_last)


def _heldout(
    key: str, steps: list[Line], measured: list[Line], units: Mapping[str, str], marks: list[Mark]
) -> list[Chart]:
    """A chart for each unit, with every corpus that is measured in it."""
    names = {name: None for line in measured for name in line["heldout"]}
    found = []
    for unit in dict.fromkeys(units.get(name.removesuffix(LIVE), "") for name in names):
        here = sorted(name for name in names if units.get(name.removesuffix(LIVE), "") == unit)  # averages first
        curves = []
        for name in here:
            points = [line for line in measured if name in line["heldout"]]
            curves.append(
                Curve(
                    name=f"{name.removesuffix(LIVE)}, live weights" if name.endswith(LIVE) else name,
                    x=[line["tokens"] for line in points],
                    y=[line["heldout"][name] for line in points],
                    steps=[line["step"] for line in points],
                    style="dashed" if name.endswith(LIVE) else "dots",
                )
            )
        number = f"-{len(found)}" if found else ""
        found.append(
            Chart(
                key=f"{key}-heldout{number}",
                title="Held out",
                unit=unit,
                curves=curves,
                marks=marks,
                end=steps[-1]["tokens"],
            )
        )
    return found


def _scaled(
    key: str, steps: list[Line], name: str, title: str, unit: str, marks: list[Mark], factor: float = 1.0
) -> Chart:
    logarithmic = "log axis" in unit
    curves = [_curve(steps, name, title.lower(), "line", min if logarithmic else max, factor)]
    return Chart(
        key=f"{key}-{name.replace('_', '-')}",
        title=title,
        unit=unit,
        curves=curves,
        marks=marks,
        logarithmic=logarithmic,
        from_zero=not logarithmic,
    )


def _marks(steps: list[Line], incidents: list[Line]) -> list[Mark]:
    """Incidents, and steps before which others were skipped."""
    numbers = [line["step"] for line in steps]
    found = []
    for one in incidents:
        place = min(bisect_left(numbers, one["step"]), len(steps) - 1)
        found.append(
            Mark(
                x=steps[place]["tokens"] if one["step"] else 0,
                kind=one["incident"],
                text=f"{one['incident']} after step {one['step']:,}: {one['what']}",
            )
        )
    skipped, skips = 0, []
    for line in steps:
        if line.get("skipped", 0) > skipped:
            count, skipped = line["skipped"] - skipped, line["skipped"]
            text = f"{count:g} skipped before step {line['step']:,}: the gradient was not finite"
            skips.append(Mark(x=line["tokens"], kind="skipped", text=text))
    return found + skips[-SKIPS_SHOWN:]


def _names(steps: list[Line], prefix: str) -> list[str]:
    return list(dict.fromkeys(name for line in (steps[0], steps[-1]) for name in line if name.startswith(prefix)))


def _last(values: Sequence[float]) -> float:
    return values[-1]
