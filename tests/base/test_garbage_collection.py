"""Garbage is collected rarely within a block, and as before after it."""

import gc
import weakref

import pytest

from lilliput.base.garbage_collection import rare_collections


class Node:
    """Refers to itself."""

    def __init__(self) -> None:
        self.own = self


def test_cycles_stay_for_the_length_of_the_block_and_thresholds_come_back() -> None:
    before = gc.get_threshold()
    with pytest.raises(ValueError, match="stop"), rare_collections():
        node = weakref.ref(Node())
        lists = [[] for _ in range(10_000)]  # past Python's own threshold
        assert node() is not None and len(lists) == 10_000
        raise ValueError("stop")
    assert gc.get_threshold() == before
    gc.collect()
    assert node() is None
