"""The result of a sweep so far as one JSON value: a row a setting, compared with the best of them seed by seed.

Means have Student's 95% confidence intervals over the seeds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from lilliput.base import __version__
from lilliput.base.files import hash_of
from lilliput.base.text_units import flops
from lilliput.sweep.axes import SweepAxis, Variant
from lilliput.sweep.metric import Metric, Outcome
from lilliput.sweep.shared_data import text_of

LEVEL = 0.95
MOST = 100
"""Seeds that anybody would train."""

Costs = Mapping[str, Mapping[str, int]]
_DIFFER = {
    "parameters": "are not models of one size",
    "tokens": "do not train on one budget",
    "operations": "do not cost the same",
}
"""Note on settings that differ in each."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean, and how far the true one may lie from it."""

    mean: float
    half_width: float | None
    """Half width of the confidence interval; None for one seed."""

    @property
    def interval(self) -> list[float] | None:
        """Both ends, or None for one seed."""
        return None if self.half_width is None else [self.mean - self.half_width, self.mean + self.half_width]

    @property
    def excludes_zero(self) -> bool | None:
        """Return whether zero lies outside of the interval; None without an interval."""
        return None if self.half_width is None else abs(self.mean) > self.half_width


def results(
    recipe: str,
    metric: Metric,
    overs: Sequence[SweepAxis],
    variants: Sequence[Variant],
    outcomes: Mapping[str, Outcome],
    costs: Costs,
) -> dict[str, Any]:
    """Return what is known by now.

    Args:
        recipe: its name.
        metric: what is compared.
        overs: the swept fields.
        variants: all of the sweep.
        outcomes: by the name of a variant.
        costs: `parameters` of the model that is compared, `steps`, `tokens`, `positions` and `operations` of
            training, by the name of a setting.

    Returns:
        JSON values; `settings` are in the order of the grid, `best` names the one of the least mean among those with
        the most seeds. `deviation` is that of a single seed. `difference` is to the best, over the seeds that both
        have; `told_apart` says whether its interval excludes zero, and is None where one seed leaves no interval;
        `seeds_to_tell` is how many would tell a difference of this size, None where so many are not worth it.
    """
    by_setting: dict[str, list[Variant]] = {}
    for variant in variants:
        by_setting.setdefault(variant.setting.name, []).append(variant)
    values = {
        name: {one.seed: value for one in group if (value := outcomes[one.name].value) is not None}
        for name, group in by_setting.items()
    }
    best = _best(values)
    return {
        "lilliput": __version__,
        "recipe": recipe,
        "metric": metric.to_plain(),
        "level": LEVEL,
        "over": {over.path: list(over.values) for over in overs},
        "seeds": sorted({variant.seed for variant in variants}),
        "variants": len(variants),
        "finished": sum(outcome.value is not None for outcome in outcomes.values()),
        "failed": sum(outcome.failure is not None for outcome in outcomes.values()),
        "best": best,
        "notes": _notes(variants, outcomes, costs),
        "settings": [
            _setting(group, values[name], values[best] if best and name != best else None, outcomes, costs[name])
            for name, group in by_setting.items()
        ],
    }


def _setting(
    group: Sequence[Variant],
    values: Mapping[int, float],
    best: Mapping[int, float] | None,
    outcomes: Mapping[str, Outcome],
    cost: Mapping[str, int],
) -> dict[str, Any]:
    seconds = [taken for one in group if (taken := outcomes[one.name].seconds) is not None]
    paired = [values[seed] - best[seed] for seed in values if seed in best] if best is not None else []
    mean, difference = (estimate(found) if found else None for found in (list(values.values()), paired))
    return {
        "name": group[0].setting.name,
        "title": group[0].setting.title,
        "values": dict(group[0].setting.values),
        "mean": mean and mean.mean,
        "interval": mean and mean.interval,
        "deviation": stdev(values.values()) if len(values) > 1 else None,
        "seeds": {str(one.seed): values.get(one.seed) for one in group},
        "difference": difference and {"mean": difference.mean, "interval": difference.interval, "seeds": len(paired)},
        "told_apart": difference and difference.excludes_zero,
        "seeds_to_tell": seeds_to_tell(difference, len(paired)) if difference else None,
        **cost,
        "seconds": sum(seconds) / len(seconds) if seconds else None,
        "failures": {str(one.seed): why for one in group if (why := outcomes[one.name].failure) is not None},
        "folders": {str(one.seed): one.name for one in group},
    }


def _best(values: Mapping[str, Mapping[int, float]]) -> str | None:
    """A mean over fewer seeds is not compared while others have more."""
    most = max(len(seeds) for seeds in values.values())
    whole = {name: fmean(seeds.values()) for name, seeds in values.items() if len(seeds) == most > 0}
    return min(whole, key=lambda name: whole[name]) if whole else None


def _notes(variants: Sequence[Variant], outcomes: Mapping[str, Outcome], costs: Costs) -> list[str]:
    """Return what a reader must know to compare the rows."""
    titles = {variant.setting.name: variant.setting.title for variant in variants}
    notes = [
        f"The settings {what}: {_span(costs, unit, titles)}."
        for unit, what in _DIFFER.items()
        if len({cost[unit] for cost in costs.values()}) > 1
    ]
    machines = sorted({outcome.machine for outcome in outcomes.values() if outcome.machine})
    if len(machines) > 1:
        notes.append(f"The variants were trained on machines of several kinds: {', '.join(machines)}.")
    notes += _changed_texts(variants, outcomes)
    if len(costs) == 1 and (measured := [one.value for one in outcomes.values() if one.value is not None])[1:]:
        apart = student_quantile(len(measured) - 1) * math.sqrt(2) * stdev(measured)
        notes.append(
            f"Seeds alone differ by a standard deviation of {stdev(measured):.4f}. With 95% confidence (Student's t, "
            f"{len(measured)} seeds) two single runs that differ in their seed alone lie within {apart:.4f} of each "
            "other: a smaller difference between two runs says nothing."
        )
    if len({variant.seed for variant in variants}) == 1:
        notes.append("One seed: no confidence interval, and no telling whether a difference would come again.")
    return notes


def _span(costs: Costs, unit: str, titles: Mapping[str, str]) -> str:
    """The least and the most that settings have of something, and which they are."""
    ends = [pick(costs, key=lambda name: costs[name][unit]) for pick in (min, max)]
    shown = [flops(costs[name][unit]) if unit == "operations" else f"{costs[name][unit]:,}" for name in ends]
    return f"{shown[0]} {unit} ({titles[ends[0]]}) to {shown[1]} ({titles[ends[1]]})"


def _changed_texts(variants: Sequence[Variant], outcomes: Mapping[str, Outcome]) -> list[str]:
    """Variants of the same corpora and tokenizer read the same token files, unless the text was edited between them."""
    first: dict[str, tuple[str, ...]] = {}
    for variant in variants:
        texts = outcomes[variant.name].texts
        if texts and first.setdefault(hash_of(text_of(variant.recipe)), texts) != texts:
            return ["The text was edited while the sweep went on: not all variants were trained on the same tokens."]
    return []


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of independent values: mean +- t s / sqrt(n), with the sample's standard deviation s."""
    count = len(values)
    half = student_quantile(count - 1) * stdev(values) / math.sqrt(count) if count > 1 else None
    return Estimate(mean=fmean(values), half_width=half)


def seeds_to_tell(value: Estimate, count: int) -> int | None:
    """Return how many seeds would tell a difference from zero if it and its deviation stay as they are.

    Args:
        value: of the differences.
        count: how many they are.

    Returns:
        None where more than MOST are needed, or there is no interval.
    """
    if value.half_width is None:
        return None
    deviation = value.half_width * math.sqrt(count) / student_quantile(count - 1)
    needed = (n for n in range(count, MOST + 1) if abs(value.mean) > student_quantile(n - 1) * deviation / math.sqrt(n))
    return next(needed, None)


def student_quantile(freedom: int, level: float = LEVEL) -> float:
    """The t with P(|T| <= t) = level, for Student's T of `freedom` degrees of freedom.

    By halving the angle theta with t = sqrt(freedom) tan(theta), in which the probability is a finite sum.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(80):  # more than the bits of a float
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _within(theta: float, freedom: int) -> float:
    """P(|T| <= sqrt(freedom) tan(theta)); Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for power in range(2 + odd, freedom - 1, 2):
        term *= cosine**2 * (power - 1) / power
        total += term
    return 2 / math.pi * (theta + sine * total) if odd else sine * total
