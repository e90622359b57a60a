"""A chart as a PNG: what `chart.html.jinja` is to a page."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

from lilliput.base.terminal import visible
from lilliput.report.charts import Chart

DOTS = 150
"""Dots per inch."""
TICKS = 8
"""About so many on an axis."""
MANY = 25
"""Labels below each other that are small."""
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999933")
"""Colors for color-blind readers too (Okabe and Ito); markers differ besides."""
MARKERS = "osD^vPX*"
STYLES: dict[str, dict[str, Any]] = {
    "line": {"linewidth": 1.5},
    "faint": {"linewidth": 0.8, "alpha": 0.38},
    "dashed": {"linewidth": 1.2, "linestyle": "--"},
    "dots": {"linewidth": 1.5, "markersize": 6},
    "single": {"linestyle": "", "markersize": 6},
    "seeds": {"linestyle": "", "marker": ".", "alpha": 0.5},
}


def chart_png(chart: Chart, width: int, height: int, *, sideways: bool = False) -> bytes:
    """Draw a chart with the intervals of its series; one that reaches beyond the picture ends in arrows.

    Args:
        chart: without marks and levels, which only a page shows.
        width: of the picture, in dots.
        height: of the picture, in dots.
        sideways: put x on the left, downwards, where there is room for long labels, and y across.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / DOTS, height / DOTS), dpi=DOTS, layout="constrained")
    axes = figure.subplots()

    def draw(points: Sequence[tuple[float, float]], **look: Any) -> None:
        across, down = zip(*points, strict=True) if points else ((), ())
        axes.plot(*(([100 - at for at in down], across) if sideways else (across, down)), **look)

    for series in chart.series:
        color, marker = COLORS[series.color % len(COLORS)], MARKERS[series.color % len(MARKERS)]
        look = ({"marker": marker} if series.style in ("dots", "single") else {}) | STYLES[series.style]
        draw(chart.points(series), color=color, label=_literal(series.name) or None, **look)
        for x, y, half in zip(series.x, series.y, series.half_widths, strict=bool(series.half_widths)):
            at, ends = chart.left(x, series.shift), [chart.top(y - half), chart.top(y + half)]
            cap = {"marker": "|" if sideways else "_", "markersize": 8} if half else {}
            draw([(at, end) for end in ends], color=color, linewidth=1.5, **cap)
            for end, arrow in zip(ends, "<>" if sideways else "v^", strict=True):
                if not 0 <= end <= 100:
                    draw([(at, min(max(end, 0), 100))], color=color, marker=arrow, markersize=7, clip_on=False)
    x, y = (chart.x.label, chart.x_ticks(TICKS)), (chart.y.label, chart.y_ticks(TICKS))
    if sideways:
        x, y = (y[0], [(100 - at, label) for at, label in y[1]]), x
    axes.set(xlim=(0, 100), ylim=(100, 0), xlabel=_literal(x[0]), ylabel=_literal(y[0]))
    axes.set_xticks([at for at, _ in x[1]], [_literal(label) for _, label in x[1]])
    size = 9 if len(y[1]) < MANY else 6
    axes.set_yticks([at for at, _ in y[1]], [_literal(label) for _, label in y[1]], fontsize=size)
    axes.set_title(_literal(chart.title), loc="left", fontsize=11)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if any(series.name for series in chart.series):
        axes.legend(frameon=False)
    written = BytesIO()
    figure.savefig(written, format="png", metadata={"Software": None})
    return written.getvalue()


def _literal(text: str) -> str:
    """Text that matplotlib draws as it is written: dollars in it are no mathematics."""
    return visible(text).replace("$", r"\$")
