"""Keys of texts that are nearly the same, and the set that remembers them."""

import random

import numpy as np
import pytest
from tiny_planted import nearly, prose

from lilliput.base.errors import RecipeError
from lilliput.data.corpora.filters import FilterChain
from lilliput.data.corpora.filters.near_duplicates import NearDuplicates
from lilliput.data.documents import Document
from lilliput.data.key_set import KeySet
from lilliput.data.minhash import MinHash

rensa = pytest.importorskip("rensa")
TEXTS = [
    "The quick brown fox jumps over the lazy dog near the river.",
    "the QUICK, brown  fox —\n“jumps”\u00a0over the lazy dog near the river",
    "",
    "four words are few",
    "exactly five words are here",
    "\ud800 été à la plage avec des amis 漢字 漢字",
    "  ",
    "a " * 40,
]


def test_case_signs_and_spaces_do_not_count() -> None:
    keys = list(MinHash().keys_of(TEXTS))
    assert keys[0] is not None and keys[1] is not None and (keys[0] == keys[1]).all() and keys[0].shape == (14,)
    assert [key is None for key in keys] == [False, False, True, True, False, False, True, False]
    assert keys[0] is not None and len(set(keys[0].tolist())) == 14, "buckets do not share keys"


def test_keys_do_not_depend_on_the_texts_beside(monkeypatch) -> None:
    draw = random.Random(0)
    texts = [prose(draw, draw.randrange(3)) + draw.choice(TEXTS) for _ in range(60)]
    together = list(MinHash().keys_of(texts))
    monkeypatch.setattr("lilliput.data.minhash.BATCH", 300)
    for one, other in zip(together, MinHash().keys_of(texts), strict=True):
        assert (one is None) == (other is None) and (one is None or other is None or (one == other).all())


def test_keys_are_those_of_every_machine() -> None:
    keys, _ = MinHash(buckets=2).keys(TEXTS[:1])
    assert [hex(key) for key in keys[0].tolist()] == ["0xa919e4e8e2840c8f", "0x2111c8193d02263"]


@pytest.mark.parametrize("every, least, most", [(200, 0.98, 1.0), (60, 0.9, 1.0), (9, 0.0, 0.05)])
def test_the_likelier_the_more_two_texts_share(every: int, least: float, most: float) -> None:
    draw = random.Random(every)
    texts = [prose(draw) for _ in range(100)]
    documents = [Document(text, "a", "a") for text in [*texts, *(nearly(text, draw, every) for text in texts)]]
    chain = FilterChain((NearDuplicates(),))
    list(chain.run(documents))
    assert least <= chain.counts["near duplicates: near duplicate"] / 100 <= most


def test_a_set_of_keys_is_a_set() -> None:
    draw = np.random.default_rng(0)
    keys, seen = KeySet(), set[int]()
    for _ in range(3_000):
        some = draw.integers(1, 1 << 17, size=int(draw.integers(1, 9)), dtype=np.uint64)
        assert keys.add(some) == bool(seen & set(some.tolist()))
        seen |= set(some.tolist())
        assert len(keys) == len(seen)
    assert keys.add(np.zeros(2, dtype=np.uint64)) is False and keys.add(np.zeros(1, dtype=np.uint64)) is True


def test_numbers_that_make_no_buckets_are_refused() -> None:
    for numbers in ({"n": 0}, {"buckets": 0}, {"hashes": 65}):
        with pytest.raises(RecipeError, match="cannot be"):
            NearDuplicates(**numbers)
