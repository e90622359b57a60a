"""From the metrics of a phase to its charts: which curves there are, in which units, and how long ones are thinned."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import fmean
from typing import Any

from lilliput.objectives.objective import CROSS_ENTROPY
from lilliput.report.charts import TOKENS, Axis, Chart, Mark, Series
from lilliput.report.records import PhaseRecord
from lilliput.train.metrics_file import LIVE, WINDOW, Line, headline_of

MOST = 600
"""Points of a curve at most: longer ones have one for several steps, their mean, or the largest where peaks matter."""
FIRST = 0.02
"""Share of a phase whose losses need not fit into a chart: they would flatten the rest."""
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
    marks = _marks(steps, phase.incidents)

    def chart(name: str, title: str, unit: str, series: list[Series], x: Axis = TOKENS, **axis: Any) -> Chart:
        y = Axis(label=unit, **axis)
        return Chart(key=f"{key}-{name}", title=title, x=x, y=y, series=series, marks=marks)

    roles = [
        _curve(steps, name, "all" if name == "grad_norm" else name.removeprefix(ROLES), summary=max, color=color)
        for color, name in enumerate(["grad_norm", *_names(steps, ROLES)])
    ]
    memory = [_curve(steps, "peak_memory", "memory", summary=max, factor=1e-9)]
    sent = [_curve(steps, "bytes_sent", "sent", summary=max, factor=1e-6)]
    scale, headroom = (
        [_curve(steps, name, name.replace("_", " "), summary=min)] for name in ("loss_scale", "headroom")
    )
    whole, heldout = replace(TOKENS, includes=[steps[-1]["tokens"]]), []
    for place, (unit, names) in enumerate(_by_unit(phase, units).items()):
        name = f"heldout-{place}" if place else "heldout"
        heldout.append(chart(name, "Held out", unit, heldout_curves(phase.measured, names), whole))
    losses = [
        chart("loss", "Training loss", "nats per target token", loss_curves(steps), skips=FIRST)
        if headline == CROSS_ENTROPY
        else chart(f"loss-{headline}", "Training loss", headline, loss_curves(steps, headline), skips=FIRST)
        for headline in dict.fromkeys(map(headline_of, steps))
    ]
    found = [
        *losses,
        *heldout,
        chart("gradient", "Gradient norm", "l2 norm before clipping, log axis", roles, logarithmic=True),
        chart("rate", "Learning rate", "share of its peak", [_curve(steps, "lr", "all groups")], from_zero=True),
        chart(
            "speed",
            "Throughput",
            f"tokens per second, mean of {WINDOW} steps",
            [_curve(steps, "tokens_per_second", "tokens per second")],
            from_zero=True,
        ),
        chart("traffic", "Traffic", "MB sent between machines, a step", sent, from_zero=True),
        chart("peak-memory", "Memory", "GB, the most so far", memory, from_zero=True),
        chart("loss-scale", "Loss scale", "factor of the loss under fp16, log axis", scale, logarithmic=True),
        chart("headroom", "Headroom", "65,504 over the largest activation, log axis", headroom, logarithmic=True),
    ]
    return [chart for chart in found if any(len(series.x) for series in chart.series)]


def loss_curves(
    steps: list[Line], name: str = CROSS_ENTROPY, across: str = "tokens", factor: float = 1.0
) -> list[Series]:
    """Make the curves of a headline: each step that has it, and its mean over the last ones.

    Args:
        steps: lines of metrics.
        name: the headline.
        across: number of a step to draw it over.
        factor: factor of the headline.
    """
    steps = [line for line in steps if headline_of(line) == name]
    window = max(2, min(WINDOW, len(steps) // 20))
    single = "each step" if len(steps) <= MOST else "mean of each point"
    means, smoothed = f"mean of {window} steps", _smoothed(steps, name, window)
    return [
        _curve(steps, name, single, "faint", across=across, factor=factor),
        _curve(smoothed, name, means, summary=_last, across=across, factor=factor),
    ]


def heldout_curves(measured: list[Line], names: Iterable[str], across: str = "tokens") -> list[Series]:
    """Held-out numbers of these names over another one; those of live weights in the color of their average."""
    found, colors = [], {}
    for name in sorted(names):
        corpus = name.removesuffix(LIVE)
        here = [line for line in measured if name in line["heldout"]]
        found.append(
            Series(
                name=corpus if name == corpus else f"{corpus}, live weights",
                x=[line[across] for line in here],
                y=[line["heldout"][name] for line in here],
                steps=[line["step"] for line in here],
                color=colors.setdefault(corpus, len(colors)),
                style="dots" if name == corpus else "dashed",
            )
        )
    return found


def thin(values: Sequence[float], summary: Callable[[Sequence[float]], float], most: int = MOST) -> list[float]:
    """At most `most` values, each of an equal run of neighbors; all as they are where they are few."""
    if len(values) <= most:
        return list(values)
    bounds = [round(place * len(values) / most) for place in range(most + 1)]
    return [summary(values[low:high]) for low, high in pairwise(bounds)]


def _curve(
    steps: list[Line],
    name: str,
    shown: str,
    style: str = "line",
    *,
    summary: Callable[[Sequence[float]], float] = fmean,
    across: str = "tokens",
    factor: float = 1.0,
    color: int = 0,
) -> Series:
    """A number of those steps that have it over another one, thinned."""
    here = [line for line in steps if name in line]
    return Series(
        name=shown,
        x=thin([line[across] for line in here], _last),
        y=thin([line[name] * factor for line in here], summary),
        steps=[int(step) for step in thin([line["step"] for line in here], _last)],
        color=color,
        style=style,
    )


def _smoothed(steps: list[Line], name: str, window: int) -> list[Line]:
    """The steps with the mean of the last `window` ones at each."""
    total, found = 0.0, []
    for place, line in enumerate(steps):
        total += line[name] - (steps[place - window][name] if place >= window else 0.0)
        found.append(line | {name: total / min(place + 1, window)})
    return found


def _by_unit(phase: PhaseRecord, units: Mapping[str, str]) -> dict[str, list[str]]:
    """The names of what was measured, by unit."""
    found: dict[str, dict[str, None]] = {}
    for line in phase.measured:
        for name in line["heldout"]:
            found.setdefault(phase.unit(name, units), {})[name] = None
    return {unit: list(names) for unit, names in found.items()}


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
