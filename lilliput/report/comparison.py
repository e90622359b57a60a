"""A comparison of runs with the first of them as a JSON value: levels that both reached, what each spent, and notes."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from lilliput.base.errors import RecipeError, RunError, reading
from lilliput.data.text_format import TEXT
from lilliput.report.equal_loss import FEWEST, Curve, Equal, at_equal, lowest_in_common, noise
from lilliput.report.heldout_curve import Asked, HeldOut, asked, common_corpus
from lilliput.report.recipe_outline import Outline
from lilliput.report.records import HINT
from lilliput.train.validation import MAX_POSITIONS

BETWEEN = 3
"""Levels besides the lowest one that both came to."""


def compare(*names: str, corpus: str | None = None, at: float | None = None) -> dict[str, Any]:
    """Tokens and time to equal held-out bits per byte.

    Args:
        names: run folders, or `folder:phase`, two at least; each one is compared with the first.
        corpus: whose held-out text; by default the one that the first run's release is judged by.
        at: bits per byte to look at; by default the lowest that both came to, and some above it.

    Returns:
        JSON values: `runs` with their curves, and `against`, what each of the others needs beside the first. Where
        there are two, what is said of the second is there by itself, too: `levels`, `equal` and `says`.

    Raises:
        RunError: there is no such run, they were not measured on the same text, or there is one alone.
        RecipeError: there is no such phase, text or level.
    """
    if at is not None and not at > 0:
        raise RecipeError(f"no model reaches {at} bits per byte", where="--at", hint="give a number above 0")
    if len(names) < 2:
        raise RunError(
            f"there is nothing to compare {' '.join(names) or 'with'}{' with' if names else ''}",
            where="the command line",
            hint="give two runs or more: lilliput compare RUN RUN",
        )
    with reading(" and ".join(names), HINT, "the records of the runs cannot be compared"):
        return _compared([asked(name) for name in names], corpus, at)


def _compared(runs: list[Asked], corpus: str | None, at: float | None) -> dict[str, Any]:
    text = common_corpus(runs, corpus)
    curves = [run.heldout(text) for run in runs]
    against = [_beside((curves[0], other), at) for other in curves[1:]]
    alone = {key: against[0][key] for key in ("levels", "equal", "says")} if len(against) == 1 else {}
    return {
        "corpus": text,
        "unit": TEXT.unit,
        "runs": [_plain(curve) for curve in curves],
        "against": against,
        **alone,
        "notes": _notes(runs, curves, text),
    }


def _beside(curves: tuple[HeldOut, HeldOut], at: float | None) -> dict[str, Any]:
    """Return what the second needs beside the first."""
    rows = [_row(curves, level) for level in (_levels(curves) if at is None else [at])]
    return {
        "run": curves[1].name,
        "levels": rows,
        "equal": any(row["tokens"]["ratio"] is not None for row in rows),
        "says": _verdict(curves, rows[0]),
    }


def _over(curve: HeldOut, what: str) -> Curve:
    return [(getattr(point, what), point.value) for point in curve.points]


def _levels(curves: tuple[HeldOut, HeldOut]) -> list[float | None]:
    """None for the lowest value in common, then some above it that both came through."""
    low = lowest_in_common(_over(curves[0], "tokens"), _over(curves[1], "tokens"))
    high = min(curve.points[0].value for curve in curves)
    return [None, *(low + part * (high - low) / (BETWEEN + 1) for part in range(1, BETWEEN + 1) if high > low)]


def _row(curves: tuple[HeldOut, HeldOut], level: float | None) -> dict[str, Any]:
    first, second = curves
    tokens = _over(first, "tokens"), _over(second, "tokens")
    seconds = _over(first, "seconds"), _over(second, "seconds")
    return {
        "value": lowest_in_common(*tokens) if level is None else level,
        "tokens": _equal(at_equal(*tokens, level)),
        "seconds": _equal(at_equal(*seconds, level)),
    }


def _equal(found: Equal) -> dict[str, Any]:
    return {
        "spent": list(found.spent),
        "ratio": found.ratio,
        "interval": None if found.interval is None else list(found.interval),
    }


def _plain(curve: HeldOut) -> dict[str, Any]:
    return {
        "name": curve.name,
        "recipe": curve.run.recipe.name,
        "finished": curve.finished,
        "noise": noise(_over(curve, "tokens")),
        "points": [asdict(point) for point in curve.points],
    }


def _verdict(curves: tuple[HeldOut, HeldOut], row: dict[str, Any]) -> str:
    """The result in a sentence."""
    value, (first, second) = row["value"], curves
    if row["tokens"]["ratio"] is not None:
        parts = [
            f"{row[what]['ratio']:.2f} of the {what} {_bounds(row[what]['interval'])}" for what in ("tokens", "seconds")
        ]
        return f"to reach {value:.4f} bits per byte {second.name} needs {' and '.join(parts)} that {first.name} needs"
    for curve in curves:
        if min(point.value for point in curve.points) > value:
            low = min(point.value for point in curve.points)
            return f"they never reach equal bits per byte: {curve.name} does not come to {value:.4f}, only to {low:.4f}"
    early = next(curve for curve in curves if curve.points[0].value <= value)
    begun = early.points[0]
    return (
        f"they are never measured at equal bits per byte: {early.name} is at {begun.value:.4f} at its first "
        f"measurement, after {begun.tokens:,} tokens, so below {value:.4f} already; measure more often (measure_every)"
    )


def _bounds(interval: list[float | None] | None) -> str:
    if interval is None:
        return "(no interval)"
    low, high = ("beyond what was measured" if end is None else f"{end:.2f}" for end in interval)
    return f"({low} to {high})"


def _notes(runs: list[Asked], curves: list[HeldOut], text: str) -> list[str]:
    """Return what limits the result."""
    counts = [len(curve.points) for curve in curves]
    these = "two runs" if len(runs) == 2 else "runs"
    notes = [
        f"measured {_listed(map(str, counts))} times; between measurements values are interpolated over the logarithm "
        "of what was spent, so a phase's measure_every decides how fine this can be",
    ]
    if min(counts) < FEWEST:
        notes.append(f"no intervals: they need {FEWEST} measurements of each run to tell how noisy one is")
    else:
        notes.append(
            "intervals: 95%, from how far measurements lie from the line between their neighbours; they hold for these "
            f"{these}, not for other seeds (lilliput sweep has those)"
        )
    notes.append(
        "while a learning rate is still high, a run is worse than one that ends there: levels above the lowest compare "
        "runs on their way"
    )
    if len({str(run.text(text)["tokenizer"]) for run in runs}) > 1:
        notes.append(
            f"tokenizers differ: each was measured on the text of its own first {MAX_POSITIONS:,} held-out positions"
        )
    machines = list(dict.fromkeys(map(_machine, runs)))
    if len(machines) > 1:
        notes.append(f"machines differ, so do not compare seconds: {'; '.join(machines)}")
    notes += [
        f"{run.name} is read without its own code, which was not allowed to run ({', '.join(run.run.recipe.hidden)})"
        for run in runs
        if isinstance(run.run.recipe, Outline)
    ]
    notes += [f"{curve.name} is still training" for curve in curves if not curve.finished]
    return notes


def _listed(words: Iterable[str]) -> str:
    *before, last = words
    return f"{', '.join(before)} and {last}"


def _machine(each: Asked) -> str:
    machine, environment = each.run.machine or {}, each.run.environment
    return f"{environment.get('processor')}, {machine.get('device')}, {machine.get('precision')}"
