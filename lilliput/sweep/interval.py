"""Means of a few seeds, with Student's 95% confidence intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95
MOST = 100
"""Seeds that anybody would train."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean, and how far the true one may lie from it."""

    mean: float
    half_width: float | None
    """Of the confidence interval; None for one seed, which says nothing about the others."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, or None for one seed."""
        return None if self.half_width is None else (self.mean - self.half_width, self.mean + self.half_width)

    @property
    def excludes_zero(self) -> bool | None:
        """Whether zero lies outside of the interval; None where there is none."""
        return None if self.half_width is None else abs(self.mean) > self.half_width


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of independent values: mean +- t s / sqrt(n), with the sample's standard deviation s."""
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(mean=mean, half_width=None)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    return Estimate(mean=mean, half_width=student_quantile(count - 1) * deviation / math.sqrt(count))


def seeds_to_tell(value: Estimate, count: int) -> int | None:
    """How many seeds would tell a difference from zero if it and its deviation stay as they are.

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
