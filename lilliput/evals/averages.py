"""Named averages of a leaderboard or a card: what goes into them as data, their value and their standard error.

An average is given only where every one of its inputs was measured, in full: a number that stands for less than its
name says would be compared with numbers that stand for all of it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lilliput.evals.score import Score


@dataclass(frozen=True, kw_only=True)
class Term:
    """One input: `weight * (score - chance) / (1 - chance)`."""

    task: str
    """The harness's name of the task."""
    metric: str
    weight: float
    chance: float = 0.0
    """Chance level, if the average counts only what lies above it."""


@dataclass(frozen=True, kw_only=True)
class Average:
    """A sum of terms with a name that people know."""

    name: str
    formula: str
    """The same in words, for tables."""
    terms: tuple[Term, ...]


@dataclass(frozen=True, kw_only=True)
class AverageScore:
    """The value of an average, a share as its inputs are."""

    name: str
    value: float
    stderr: float | None
    """One standard error, the items of the tasks taken as independent; None where a task has none."""
    formula: str


def averaged(average: Average, scores: Mapping[tuple[str, str], Score]) -> AverageScore | None:
    """The average of scores by (task, metric), or None where one of its inputs is not there.

    The variance of a weighted sum of independent scores is the weighted sum of their variances, weights squared.
    """
    if any((term.task, term.metric) not in scores for term in average.terms):
        return None
    value, variance, is_known = 0.0, 0.0, True
    for term in average.terms:
        score, slope = scores[term.task, term.metric], term.weight / (1 - term.chance)
        value += slope * (score.value - term.chance)
        is_known = is_known and score.stderr is not None
        variance += (slope * (score.stderr or 0.0)) ** 2
    stderr = math.sqrt(variance) if is_known else None
    return AverageScore(name=average.name, value=value, stderr=stderr, formula=average.formula)


def mean(name: str, formula: str, tasks: Sequence[str], metric: str) -> Average:
    """The plain mean of one metric over some tasks.

    Args:
        name: of the average.
        formula: the same in words.
        tasks: by the harness's names.
        metric: of each of them.
    """
    terms = tuple(Term(task=task, metric=metric, weight=1 / len(tasks)) for task in tasks)
    return Average(name=name, formula=formula, terms=terms)


_ARC = ("arc_easy", "arc_challenge")
ARC_ACC = mean("arc_avg_acc", "(ARC-Easy + ARC-Challenge) / 2, acc", _ARC, "acc")
ARC_ACC_NORM = mean("arc_avg_accnorm", "(ARC-Easy + ARC-Challenge) / 2, acc_norm", _ARC, "acc_norm")

HEADLINE = Average(
    name="headline",
    formula="(HellaSwag + (ARC-Easy + ARC-Challenge) / 2 + PIQA) / 3, acc_norm",
    terms=(
        Term(task="hellaswag", metric="acc_norm", weight=1 / 3),
        Term(task="arc_easy", metric="acc_norm", weight=1 / 6),
        Term(task="arc_challenge", metric="acc_norm", weight=1 / 6),
        Term(task="piqa", metric="acc_norm", weight=1 / 3),
    ),
)

AVG_SLM = Average(
    name="avg_slm",
    formula="(HellaSwag + (ARC-Easy + ARC-Challenge) / 2 + PIQA + ArithMark-2.0) / 4, acc_norm, ArithMark acc",
    terms=(
        Term(task="hellaswag", metric="acc_norm", weight=1 / 4),
        Term(task="arc_easy", metric="acc_norm", weight=1 / 8),
        Term(task="arc_challenge", metric="acc_norm", weight=1 / 8),
        Term(task="piqa", metric="acc_norm", weight=1 / 4),
        Term(task="arithmark2", metric="acc", weight=1 / 4),
    ),
)
"""The average of the SLM-10M card: 26.53, 30.47, 25.00, 50.92 and 24.32 give 32.38."""

INTELLIGENCE_INDEX = Average(
    name="ii",
    formula="(n(HellaSwag, .25) + n((ARC-Easy + ARC-Challenge) / 2, .25) + n(PIQA, .5) + 0.65 n(ArithMark-3, .25)) / "
    "3.65, acc_norm, with n(a, c) = (a - c) / (1 - c)",
    terms=(
        Term(task="hellaswag", metric="acc_norm", weight=1 / 3.65, chance=0.25),
        Term(task="arc_easy", metric="acc_norm", weight=1 / 7.3, chance=0.25),
        Term(task="arc_challenge", metric="acc_norm", weight=1 / 7.3, chance=0.25),
        Term(task="piqa", metric="acc_norm", weight=1 / 3.65, chance=0.5),
        Term(task="arithmark3", metric="acc", weight=0.65 / 3.65, chance=0.25),
    ),
)
"""Ranking score of the Open SLM Leaderboard; 0 is guessing, below it worse than guessing. ArithMark-3 compares means
per token, which its `acc` is of.
"""
