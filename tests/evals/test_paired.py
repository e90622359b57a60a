"""Two models on the same items: an interval as narrow as the pairs allow, the same for a seed."""

import numpy as np
import pytest

from lilliput.base.errors import DataError
from lilliput.evals.paired import differences, paired_bootstrap


def test_the_interval_is_that_of_the_differences_and_not_of_the_scores() -> None:
    """Models that are right on the same items differ by little, however hard the items are."""
    draw = np.random.default_rng(0)
    first = (draw.random(2_000) < 0.5).astype(float)
    second = first.copy()
    second[:40] = 1.0
    low, high = paired_bootstrap(first, second)
    gained = float(np.mean(second - first))
    by_hand = 1.96 * float(np.std(second - first)) / np.sqrt(2_000)
    assert low == pytest.approx(gained - by_hand, abs=7e-4) and high == pytest.approx(gained + by_hand, abs=7e-4)
    assert 0 < low < high < 1.96 * np.sqrt(0.5 / 2_000), "narrower than of independent scores"
    few = [paired_bootstrap(first, second, seed=seed, samples=9) for seed in (0, 0, 1)]
    assert paired_bootstrap(first, second) == (low, high) and few[0] == few[1] != few[2]
    assert paired_bootstrap(first, first) == (0.0, 0.0)


def test_the_interval_has_the_difference_in_it_about_as_often_as_it_says() -> None:
    hits = 0
    for trial in range(200):
        draw = np.random.default_rng(trial)
        first, second = (draw.random(300) < 0.4).astype(float), (draw.random(300) < 0.5).astype(float)
        low, high = paired_bootstrap(first, second, seed=trial, samples=1_000)
        hits += low <= 0.1 <= high
    assert 180 <= hits <= 200


def record(number: int, acc: float, said: str = "a") -> dict:
    return {"task": "t", "doc_id": number, "doc_hash": said + str(number), "acc": acc}


def test_items_are_paired_by_their_number_and_have_to_be_the_same() -> None:
    first = {"t": [record(number, number % 2) for number in range(40)], "other": [record(0, 1.0)]}
    second = {"t": [record(number, 1.0) for number in reversed(range(20, 60))]}
    (found,) = differences(first, second)
    assert (found.items, found.first, found.second, found.difference) == (20, 0.5, 1.0, 0.5) and found.is_clear
    with pytest.raises(DataError, match="item 39 of t is another one"):
        differences(first, {"t": [record(39, 1.0, said="b")]})
    with pytest.raises(DataError, match="no scored item in common"):
        differences(first, {"t": [record(77, 1.0)]})
