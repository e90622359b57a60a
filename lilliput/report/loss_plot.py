"""The loss of a phase as a picture, for the card of a release."""

import math
from dataclasses import replace
from pathlib import Path

from lilliput.base.files import write_bytes
from lilliput.objectives.objective import CROSS_ENTROPY
from lilliput.report.chart_png import chart_png
from lilliput.report.charts import TOKENS, Axis, Chart
from lilliput.report.curves import FIRST, heldout_curves, loss_curves
from lilliput.train.metrics_file import headline_of, measured_of, read_metrics, released, steps_of

SIZE = 1200, 675


def plot_loss(metrics: Path, picture: Path, title: str, bytes_per_token: float | None) -> None:
    """Draw the training loss of a phase, and its held-out measurements, into a PNG.

    Args:
        metrics: the phase's `metrics.jsonl`.
        picture: the PNG to write.
        title: title of the chart.
        bytes_per_token: for bits per byte; None if unknown.
    """
    lines = read_metrics(metrics)
    steps = steps_of(lines)
    headline = headline_of(steps[-1])
    unit = headline
    if headline == CROSS_ENTROPY:
        unit = "bits per byte" if bytes_per_token else "nats per token"
    factor = 1 / math.log(2) / bytes_per_token if bytes_per_token and headline == CROSS_ENTROPY else 1.0
    measured = [line for line in measured_of(lines) if headline_of(line) == headline]
    training = loss_curves(steps, headline, "step", factor)
    heldout = heldout_curves(measured, {name for line in measured for name in released(line)}, "step")
    chart = Chart(
        key="loss",
        title=title,
        x=replace(TOKENS, label="step"),
        y=Axis(label=unit, skips=FIRST),
        series=[
            *(replace(series, name=f"training, {series.name}") for series in training),
            *(replace(series, name=f"held out: {series.name}", color=series.color + 1) for series in heldout),
        ],
    )
    write_bytes(picture, chart_png(chart, *SIZE))
