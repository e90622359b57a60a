"""One figure of a model card: its value, its standard error, and what guessing would give."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NORMAL_95 = 1.96
"""Standard errors on either side of a value, in its interval of 95%."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """A measured figure, ready for a table."""

    task: str
    """The name on the card."""
    metric: str
    value: float
    stderr: float | None
    """One standard error of `value` over the items, which are taken as independent; None where they tell none: there is
    one alone, or all are alike."""
    chance: float | None
    """Chance level, or None if guessing is impossible."""
    items: int
    """Documents, questions or replies that `value` is made of."""
    higher_is_better: bool
    note: str = ""


def mean_stderr(values: Sequence[float]) -> float | None:
    """Standard error of a mean, sqrt(p (1 - p) / (n - 1)) for a share p of right answers.

    Returns:
        None of a single value, and of values that are all alike: seven right answers of seven are no certainty.
    """
    if len(set(values)) < 2:
        return None
    return float(np.std(np.asarray(values, dtype=np.float64), ddof=1)) / math.sqrt(len(values))


def jackknife_stderr(without_one: Sequence[float]) -> float:
    """Standard error of a statistic from its n >= 2 values on all items but one (Tukey 1958).

    sqrt((n - 1) / n * sum((x - mean(x))^2)). Bits per byte is a ratio of two sums, whose items are long and short
    documents: no mean over documents, so its spread is taken from what leaving a document out does to the ratio.
    """
    values = np.asarray(without_one, dtype=np.float64)
    return math.sqrt((len(values) - 1) / len(values) * float(np.sum((values - values.mean()) ** 2)))


def when_alike(values: Sequence[float]) -> str:
    """The note of a share of items that are all right, or all wrong: what it is at least, or at most.

    The bound is exact, one-sided, at 95%: whoever is right in a share p is right n times of n with probability p^n,
    which for many items is the rule of three, 1 - 3 / n.
    """
    if len(values) < 2 or set(values) not in ({0}, {1}):
        return ""
    bound = 0.05 ** (1 / len(values))
    if values[0]:
        return f"all {len(values):,} are right: {bound:.1%} or more, at 95% confidence"
    return f"none of {len(values):,} is right: {1 - bound:.1%} or less, at 95% confidence"


def against_chance(
    value: float, *, stderr: float | None, chance: float | None, items: int, majority: float | None = None
) -> str:
    """The note of a share of right answers that guessing could explain, or that is worse than guessing.

    The larger of the measured standard error and that of guessing counts: a share of 0 or 1 measures none. Whoever
    always gives the commonest answer, which is right in a share `majority`, knows as little as whoever guesses.

    Args:
        value: share of right answers.
        stderr: its standard error, if there is one.
        chance: chance level; None if guessing is impossible.
        items: number of items.
        majority: score of always giving the commonest answer.
    """
    if chance is None:
        return ""
    margin = 2 * max(stderr or 0.0, math.sqrt(chance * (1 - chance) / items))
    if abs(value - chance) <= margin:
        return "within two standard errors of chance"
    if value < chance:
        return "below chance by more than two standard errors"
    if majority is not None and value - majority <= margin:
        return f"no better than chance: the commonest answer alone scores {majority:.1%}"
    return ""
