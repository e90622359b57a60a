"""Standard errors and the notes about chance."""

import math
import random
import statistics

import pytest

from lilliput.evals.score import against_chance, jackknife_stderr, mean_stderr, when_alike


def test_the_error_of_a_share_is_that_of_lm_evaluation_harness() -> None:
    hits = [1.0] * 7 + [0.0] * 13
    assert mean_stderr(hits) == pytest.approx(math.sqrt(0.35 * 0.65 / 19))


def test_the_jackknife_of_a_mean_is_its_textbook_error() -> None:
    chance = random.Random(0)
    values = [chance.gauss(3, 2) for _ in range(40)]
    without_one = [(sum(values) - value) / (len(values) - 1) for value in values]
    assert jackknife_stderr(without_one) == pytest.approx(statistics.stdev(values) / math.sqrt(len(values)))


def test_the_jackknife_of_a_ratio_is_the_spread_over_samples() -> None:
    chance = random.Random(1)

    def sample() -> list[tuple[float, float]]:
        sizes = [chance.randint(20, 200) for _ in range(50)]
        return [(size * chance.gauss(1.5, 0.3), size) for size in sizes]

    def ratio(pairs: list[tuple[float, float]]) -> float:
        return sum(bits for bits, _ in pairs) / sum(size for _, size in pairs)

    spread = statistics.stdev(ratio(sample()) for _ in range(2000))
    errors = []
    for _ in range(50):
        pairs = sample()
        errors.append(jackknife_stderr([ratio(pairs[:index] + pairs[index + 1 :]) for index in range(len(pairs))]))
    assert statistics.mean(errors) == pytest.approx(spread, rel=0.1)


def test_items_that_are_all_alike_tell_no_error_but_a_bound() -> None:
    for hits in ([True] * 7, [False] * 7, [1.0] * 7, [True], []):
        assert mean_stderr(hits) is None
    assert when_alike([True] * 7) == "all 7 are right: 65.2% or more, at 95% confidence"
    assert when_alike([0.0] * 300) == "none of 300 is right: 1.0% or less, at 95% confidence", "the rule of three"
    assert when_alike([True] * 6 + [False]) == when_alike([0.4] * 7) == when_alike([True]) == ""


@pytest.mark.parametrize(
    ("value", "stderr", "chance", "items", "note"),
    [
        (3.2, 0.1, None, 100, ""),
        (0.29, 0.02, 0.25, 500, "within two standard errors of chance"),
        (0.30, 0.02, 0.25, 500, ""),
        (0.20, 0.018, 0.25, 500, "below chance by more than two standard errors"),
        (0.0, 0.0, 0.25, 5, "within two standard errors of chance"),  # guessing alone spreads by 0.19
        (1.0, 0.0, 0.25, 5, ""),
    ],
)
def test_notes_say_what_guessing_could_explain(
    value: float, stderr: float, chance: float | None, items: int, note: str
) -> None:
    assert against_chance(value, stderr=stderr, chance=chance, items=items) == note


@pytest.mark.parametrize(
    ("value", "note"),
    [
        (0.62, "no better than chance: the commonest answer alone scores 62.2%"),
        (0.55, "no better than chance: the commonest answer alone scores 62.2%"),
        (0.66, ""),
        (0.50, "within two standard errors of chance"),
        (0.45, "below chance by more than two standard errors"),
    ],
)
def test_notes_say_what_the_commonest_answer_alone_could_explain(value: float, note: str) -> None:
    assert against_chance(value, stderr=0.0087, chance=0.5, majority=0.6217, items=3270) == note
