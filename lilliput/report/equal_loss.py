"""Compares the tokens and time two runs need to reach equal bits per byte, with intervals.

Between two measurements the value is taken to fall in a line over the logarithm of tokens (or seconds). The noise of a
measurement is estimated from how far each one lies from the line between its neighbours; what is bent in a curve counts
as noise too, so that intervals are rather too wide. An interval has the middle 95% of the ratios of curves drawn with
that noise. It says nothing about other seeds.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

DRAWS = 2_000
LEVEL = 0.95
FEWEST = 4
"""Measurements from which noise can be told."""

Curve = Sequence[tuple[float, float]]
"""Points of the spending so far, above 0 and growing, and the value then."""


@dataclass(frozen=True, kw_only=True)
class Equal:
    """Spending of each of two runs to reach a value."""

    spent: tuple[float | None, float | None]
    """None where it was never that low, and where it was at its first measurement already."""
    ratio: float | None
    """The second's over the first's."""
    interval: tuple[float | None, float | None] | None
    """Interval of the ratio; an end is None where it lies beyond what was measured. None altogether where noise is not
    known.
    """


def reached(curve: Curve, level: float) -> float | None:
    """Return what was spent when the value was `level` for the first time; infinity for never, None for before the
    first.
    """
    place = next((place for place, (_, value) in enumerate(curve) if value <= level), None)
    if place is None:
        return math.inf
    if place == 0:
        return curve[0][0] if curve[0][1] == level else None
    (before, high), (after, low) = curve[place - 1], curve[place]
    return before * (after / before) ** ((high - level) / (high - low))


def noise(curve: Curve) -> float | None:
    """Standard deviation of a measurement; None where there are too few."""
    if len(curve) < FEWEST:
        return None
    squares = []
    for (left, high), (middle, value), (right, low) in zip(curve, curve[1:], curve[2:], strict=False):
        share = math.log(middle / left) / math.log(right / left)
        off = value - (high + share * (low - high))
        squares.append(off**2 / (1 + share**2 + (1 - share) ** 2))
    return math.sqrt(sum(squares) / len(squares))


def lowest_in_common(first: Curve, second: Curve) -> float:
    """The lowest value that both came to."""
    return max(min(value for _, value in first), min(value for _, value in second))


def at_equal(first: Curve, second: Curve, level: float | None = None) -> Equal:
    """Return what both spent to reach `level`; without one, the lowest value that both came to."""
    value = lowest_in_common(first, second) if level is None else level
    spent = (reached(first, value), reached(second, value))
    one, other = (amount if amount is not None and math.isfinite(amount) else None for amount in spent)
    ratio = None if one is None or other is None else other / one
    return Equal(spent=(one, other), ratio=ratio, interval=None if ratio is None else _interval(first, second, level))


def _interval(first: Curve, second: Curve, level: float | None) -> tuple[float | None, float | None] | None:
    deviations = noise(first), noise(second)
    if deviations[0] is None or deviations[1] is None:
        return None
    generator = random.Random(0)
    ratios = []
    for _ in range(DRAWS):
        one = [(spent, generator.gauss(value, deviations[0])) for spent, value in first]
        other = [(spent, generator.gauss(value, deviations[1])) for spent, value in second]
        ratios.append(_drawn_ratio(one, other, lowest_in_common(one, other) if level is None else level))
    ratios = sorted(ratio for ratio in ratios if not math.isnan(ratio))
    if not ratios:
        return None
    low, high = (ratios[round(share * (len(ratios) - 1))] for share in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return (low or None, high if math.isfinite(high) else None)


def _drawn_ratio(first: Curve, second: Curve, level: float) -> float:
    """0 and infinity where one of them is beyond what was measured; NaN where both are, which says nothing."""
    one, other = reached(first, level), reached(second, level)
    one, other = (0.0 if spent is None else spent for spent in (one, other))
    if (one, other) in ((0.0, 0.0), (math.inf, math.inf)):
        return math.nan
    return math.inf if one == 0 or other == math.inf else other / one
