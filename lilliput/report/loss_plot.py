"""The loss of a phase as a picture, for the card of a release."""

import math
from pathlib import Path

from lilliput.base.terminal import visible
from lilliput.train.metrics_file import WINDOW, measured_of, read_metrics, released, steps_of


def plot_loss(metrics: Path, picture: Path, title: str, bytes_per_token: float | None) -> None:
    """Draw the training loss of a phase, and its held-out measurements, into a PNG."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    lines = read_metrics(metrics)
    steps, measured = steps_of(lines), [(line["step"], released(line)) for line in measured_of(lines)]
    scale = 1 / math.log(2) / bytes_per_token if bytes_per_token else 1.0
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    values = [line["cross_entropy"] * scale for line in steps]
    axes.plot([line["step"] for line in steps], values, color="#9ecae1", linewidth=0.8, label="training, each step")
    smooth = [sum(values[max(0, i - WINDOW + 1) : i + 1]) / min(i + 1, WINDOW) for i in range(len(values))]
    axes.plot([line["step"] for line in steps], smooth, color="#08519c", label=f"training, mean of {WINDOW} steps")
    high = max(values[len(values) // 50 :])  # the very first steps would flatten the rest
    for name in sorted({name for _, numbers in measured for name in numbers}):
        points = [(step, numbers[name]) for step, numbers in measured if name in numbers]
        high = max(high, *(value for _, value in points))
        axes.plot(*zip(*points, strict=True), "o-", markersize=4, label=f"held out: {lettering(name)}")
    axes.set(title=lettering(title), xlabel="step", ylabel="bits per byte" if bytes_per_token else "nats per token")
    axes.set_ylim(min(values) * 0.9, high * 1.02)
    axes.grid(alpha=0.3)
    axes.legend()
    partial = picture.with_name(picture.name + ".partial")
    figure.savefig(partial, format="png", dpi=120)
    partial.replace(picture)


def lettering(text: str) -> str:
    """Text that matplotlib draws as it is written: dollars in it are no mathematics."""
    return visible(text).replace("$", r"\$")
