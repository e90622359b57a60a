"""How soon does each accelerator come to where ordinary training ends?

    python benchmarks/accelerators_page.py RESULT.json... [--baseline "bag 1"] [--out FILE.json]

Reads what `benchmarks/accelerators.py` wrote. FILE.json has the finals of each arm, FILE.md the tables of them, and
FILE-seconds.png, -tokens.png and -passes.png the curves. Finals are the longest trials that there are. The seconds in
which an arm would end where the baseline does are those of a budget between the best tuning trial and the finals, on a
straight line over the logarithm of seconds. Behind a difference of two means is half of its 95% interval, Student's, by
the variance that the seeds of all arms have together. Curves begin where they come below the baseline's first
measurement; a seed after the first is faint.
"""

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import t as student_t

from lilliput.base.environment import environment
from lilliput.base.files import read_json, write_bytes, write_json, write_text
from lilliput.report.chart_png import chart_png
from lilliput.report.charts import Axis, Chart, Series

SPENDINGS = {"seconds": "seconds of training", "tokens": "text tokens", "passes": "passes over the text"}
"""By name of the picture; the first numbers of a point of a curve, in this order."""
WIDTH, HEIGHT = 1200, 720
HEADER = (
    "| arm | rate | bits per byte | spread | against {}, 95% | steps | ms a step | tokens | passes "
    "| seconds to its end |",
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
)
PREDICTIONS = (
    "| arm | accuracy of the model at the end | of the sampler after the blocks | its bits per byte, at most |",
    "|---|--:|--:|--:|",
)


def seconds_to(level: float, short: tuple[float, float], long: tuple[float, float]) -> float:
    """Return the budget whose training would end at a level, on the line through two budgets' ends over log seconds.

    Each budget is a training of its own, with its own decay: inside of one, a curve falls when its rate does, and comes
    to where another one ends only then.
    """
    (few, high), (many, low) = short, long
    return math.exp(math.log(many) + math.log(many / few) * (low - level) / (high - low))


def arms(trials: Sequence[dict[str, Any]], baseline: str) -> list[dict[str, Any]]:
    """Return the finals by arm, the baseline's first."""
    longest = max(trial["seconds"] for trial in trials)
    finals: dict[str, list[dict[str, Any]]] = {baseline: []}
    for trial in trials:
        if trial["seconds"] == longest:
            finals.setdefault(trial["arm"], []).append(trial)
    level = statistics.mean(trial["bits_per_byte"] for trial in finals[baseline])
    seeds = {name: [trial["bits_per_byte"] for trial in its] for name, its in finals.items()}
    return [
        _arm(name, its, trials, level) | {"interval": interval(seeds, name, baseline)} for name, its in finals.items()
    ]


def interval(seeds: Mapping[str, Sequence[float]], arm: str, baseline: str) -> float | None:
    """Return half the width of the 95% interval of two arms' difference; None for the baseline, or for single seeds."""
    freedom = sum(len(values) - 1 for values in seeds.values())
    if arm == baseline or not freedom:
        return None
    squares = sum((value - statistics.mean(values)) ** 2 for values in seeds.values() for value in values)
    error = math.sqrt(squares / freedom * sum(1 / len(seeds[name]) for name in (arm, baseline)))
    return float(student_t.ppf(0.975, freedom)) * error


def _arm(name: str, trials: list[dict[str, Any]], all_trials: Sequence[dict[str, Any]], level: float) -> dict[str, Any]:
    values = [trial["bits_per_byte"] for trial in trials]
    end = (trials[0]["seconds"], statistics.mean(values))
    tuning = [one for one in all_trials if one["arm"] == name and one["seconds"] < end[0]]
    best = min(tuning, key=lambda one: one["bits_per_byte"], default=None)
    means = ("steps", "step_milliseconds", "tokens", "passes")
    samplers = [trial["sampler"] for trial in trials if trial.get("sampler")]
    return {
        "arm": name,
        "seeds": len(trials),
        "rate": trials[0]["rate"],
        "bits_per_byte": statistics.mean(values),
        "spread": max(values) - min(values),
        "against_baseline": statistics.mean(values) - level,
        "seconds_to_baseline": seconds_to(level, (best["seconds"], best["bits_per_byte"]), end) if best else None,
        "accuracy": _mean(trial["accuracy"] for trial in trials if "accuracy" in trial),
        "sampler_accuracy": _mean(one["accuracy"] for one in samplers),
        "sampler_bits_per_byte": _mean(one["bits_per_byte"] for one in samplers),
        "curves": [trial["curve"] for trial in trials],
    } | {key: statistics.mean(trial[key] for trial in trials) for key in means}


def _mean(values: Any) -> float | None:
    found = list(values)
    return statistics.mean(found) if found else None


def markdown(found: Sequence[dict[str, Any]]) -> str:
    """Return the tables: what arms came to, and how well tokens are predicted."""
    header = HEADER[0].replace("{}", found[0]["arm"])
    lines = [header, HEADER[1], *map(_row, found)]
    sampled = [arm for arm in found if arm["accuracy"] is not None]
    if sampled:
        lines += ["", *PREDICTIONS, *map(_predictions, sampled)]
    return "\n".join(lines) + "\n"


def _row(arm: dict[str, Any]) -> str:
    spread = f"{arm['spread']:.4f} of {arm['seeds']}" if arm["seeds"] > 1 else "one seed"
    cells = (
        arm["arm"],
        f"{arm['rate']:g}",
        f"{arm['bits_per_byte']:.4f}",
        spread,
        f"{arm['against_baseline']:+.4f}" + ("" if arm["interval"] is None else f" ± {arm['interval']:.4f}"),
        f"{arm['steps']:,.0f}",
        f"{arm['step_milliseconds']:.1f}",
        f"{arm['tokens'] / 1e6:,.1f} M",
        f"{arm['passes']:.2f}",
        _or_none(arm["seconds_to_baseline"], ".0f"),
    )
    return f"| {' | '.join(cells)} |"


def _predictions(arm: dict[str, Any]) -> str:
    numbers = (f"{arm['accuracy']:.1%}", _or_none(arm["sampler_accuracy"], ".1%"))
    return f"| {arm['arm']} | {' | '.join(numbers)} | {_or_none(arm['sampler_bits_per_byte'], '.4f')} |"


def _or_none(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)


def chart(found: Sequence[dict[str, Any]], spending: str) -> Chart:
    """Return the curves of all arms over what was spent."""
    place, ceiling = list(SPENDINGS).index(spending), found[0]["curves"][0][0][3]
    series = []
    for color, arm in enumerate(found):
        for seed, curve in enumerate(arm["curves"]):
            points = [(point[place], point[3]) for point in curve if point[3] <= ceiling and math.isfinite(point[3])]
            x, y = zip(*points, strict=True) if points else ((), ())
            name, style = ("", "faint") if seed else (arm["arm"], "line")
            series.append(Series(name=name, x=x, y=y, color=color, style=style))
    across, down = Axis(label=SPENDINGS[spending], from_zero=True), Axis(label="held-out bits per byte")
    return Chart(key=spending, title="Equal time on one GPU", x=across, y=down, series=series)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("results", nargs="+", type=Path)
    options.add_argument("--baseline", default="bag 1", metavar="ARM")
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    found = arms([trial for file in chosen.results for trial in read_json(file)["trials"]], chosen.baseline)
    print(markdown(found), end="")
    if chosen.out:
        write_json(chosen.out, {"environment": environment(), "baseline": chosen.baseline, "arms": found})
        write_text(chosen.out.with_suffix(".md"), markdown(found))
        for spending in SPENDINGS:
            picture = chosen.out.with_name(f"{chosen.out.stem}-{spending}.png")
            write_bytes(picture, chart_png(chart(found, spending), WIDTH, HEIGHT))


if __name__ == "__main__":
    main()
