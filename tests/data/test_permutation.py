"""A permutation without a table: every number once, another order for another key, no place preferred."""

from itertools import permutations

import numpy as np
import pytest

from lilliput.data.permutation import Permutation


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 1_000, 4_097, 100_000])
def test_every_number_is_there_once(count: int) -> None:
    order = Permutation(count, "key")(np.arange(count))
    assert order.dtype == np.int64 and np.array_equal(np.sort(order), np.arange(count))


def test_any_part_is_computed_by_itself() -> None:
    whole, rng = Permutation(9_999, "key")(np.arange(9_999)), np.random.RandomState(0)
    for _ in range(20):
        positions = rng.randint(0, 9_999, size=rng.randint(0, 50))
        assert np.array_equal(Permutation(9_999, "key")(positions), whole[positions])
    far = Permutation(2**62, "key")(np.array([0, 2**62 - 1]))
    assert ((far >= 0) & (far < 2**62)).all() and far[0] != far[1]


def test_the_order_is_the_same_on_every_machine_for_ever() -> None:
    assert Permutation(10, "key")(np.arange(10)).tolist() == [6, 9, 5, 7, 0, 8, 2, 1, 4, 3]


def test_no_number_prefers_a_place_and_no_neighbors_stay_neighbors() -> None:
    count, keys = 20, 4_000
    orders = np.stack([Permutation(count, f"key {key}")(np.arange(count)) for key in range(keys)])
    expected = keys / count
    for position in range(count):
        seen = np.bincount(orders[:, position], minlength=count)
        chi = float(((seen - expected) ** 2 / expected).sum())
        assert chi < 60, "of 19 degrees of freedom; 60 is beyond one in 300,000"
    followed = (orders[:, 1:] - orders[:, :-1] == 1).mean()
    assert followed == pytest.approx(1 / count, abs=0.004)


def test_all_orders_of_four_come_up_alike() -> None:
    keys = 9_600
    orders = [tuple(Permutation(4, f"{key}")(np.arange(4))) for key in range(keys)]
    counts = [orders.count(order) for order in permutations(range(4))]
    assert min(counts) > 300 and max(counts) < 500, "400 expected of each of 24"
