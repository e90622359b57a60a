"""Pairs of texts that nearly are the same, among those of several sources: by the runs of five words that they share.

`minhash` hashes the runs; of the hashes, 16 bands of four least ones find candidates, as in `near_duplicates`, and the
likeness of a candidate is counted: the share of all runs of either text that both have (Jaccard). All of it is NumPy
over many texts together, at some 25 MB/s a core, and takes about three times the memory of the texts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lilliput.data.minhash import BATCH, run_hashes
from lilliput.data.near_duplicates import BANDS, LEAST, MULTIPLIERS, OFFSETS, ROWS, RUN
from lilliput.data.splitmix64 import mixed

LIKENESS = 0.8
"""Share of the runs of either text that near-duplicates have in common at least."""
_TRIES = 4
"""Candidates of a text in one source that are compared with it, the likeliest first."""
_MAY = LIKENESS - 0.2
"""Share of equal least hashes below which a candidate is not compared: four standard deviations below the likeness."""
_CHUNK = 1 << 16
_FACTORS = np.array([pow(0x9E3779B97F4A7C15, power, 1 << 64) for power in range(1, ROWS + 1)], dtype=np.uint64)


@dataclass(frozen=True)
class NearPair:
    """Two texts by their numbers."""

    one: int
    other: int
    """A text of another source, or an earlier one of the same."""
    likeness: float


def near_pairs(texts: Sequence[str], sources: np.ndarray) -> Iterator[NearPair]:
    """Yield, for each text and each source, one text there that it nearly is, if one was found.

    Args:
        texts: those of a source in its order; shorter ones than 13 words are never near-duplicates.
        sources: of each text, [texts], numbers from 0 on.
    """
    sets, numbers = _run_sets(texts)
    least = _least_hashes(sets)
    one, other = _candidates(_band_keys(least), sources[numbers])
    one, other = _likeliest(one, other, least, sources[numbers])
    found: tuple[int, int] | None = None
    for first, second in zip(one.tolist(), other.tolist(), strict=True):
        place = (first, int(sources[numbers[second]]))
        if place != found and (likeness := _likeness(sets[first], sets[second])) >= LIKENESS:
            yield NearPair(int(numbers[first]), int(numbers[second]), likeness)
            found = place


def _run_sets(texts: Sequence[str]) -> tuple[list[np.ndarray], np.ndarray]:
    """The hashes of the runs of each text that is long enough, each once and in order; and the numbers of the texts."""
    sets: list[np.ndarray] = []
    numbers: list[int] = []
    batch: list[str] = []
    size = 0
    for number, text in enumerate(texts, 1):
        batch.append(text)
        size += len(text)
        if size < BATCH and number < len(texts):
            continue
        runs, ends = run_hashes(batch, RUN)
        for place, some in enumerate(np.split(runs, ends[:-1]), number - len(batch)):
            if len(some) > LEAST - RUN:
                sets.append(np.unique(some))
                numbers.append(place)
        batch, size = [], 0
    return sets, np.array(numbers, dtype=np.int64)


def _least_hashes(sets: Sequence[np.ndarray]) -> np.ndarray:
    """The least of each of the hash functions over each set, [sets, functions]."""
    least = np.empty((len(sets), BANDS * ROWS), dtype=np.uint64)
    first = 0
    while first < len(sets):
        after, size = first, 0
        while after < len(sets) and (size == 0 or size + len(sets[after]) <= _CHUNK):
            size += len(sets[after])
            after += 1
        runs = np.concatenate(sets[first:after])
        starts = np.cumsum([0, *map(len, sets[first : after - 1])])
        for column, (multiplier, offset) in enumerate(zip(MULTIPLIERS[:, 0], OFFSETS[:, 0], strict=True)):
            least[first:after, column] = np.minimum.reduceat(runs * multiplier + offset, starts)
        first = after
    return least


def _band_keys(least: np.ndarray) -> np.ndarray:
    """One hash of the least hashes of each band, [sets, bands]."""
    return mixed((least.reshape(len(least), BANDS, ROWS) * _FACTORS).sum(axis=2, dtype=np.uint64))


def _candidates(keys: np.ndarray, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of sets that have a key in common: each set with the first one of every source, and with its neighbor.

    Clusters are large where a text is a template, and all pairs of one would be far too many.
    """
    count, pairs = len(keys), [np.zeros(0, dtype=np.int64)]
    for band in range(keys.shape[1]):
        order = np.argsort(keys[:, band], kind="stable")
        begins = np.flatnonzero(np.diff(keys[order, band], prepend=~keys[order[:1], band]))
        groups = np.repeat(np.arange(len(begins)), np.diff(begins, append=count))
        is_same = groups[1:] == groups[:-1]
        found = [order[1:][is_same] * count + order[:-1][is_same]]
        for source in np.unique(sources):
            own = np.where(sources[order] == source, order, count)
            firsts = np.minimum.reduceat(own, begins)[groups] if count else own
            is_pair = (firsts < count) & (firsts != order)
            found.append(order[is_pair] * count + firsts[is_pair])
        pairs.append(np.unique(np.concatenate(found)))
    every = np.unique(np.concatenate(pairs))
    one, other = every // max(1, count), every % max(1, count)
    is_asked = (sources[one] != sources[other]) | (one > other)
    return one[is_asked], other[is_asked]


def _likeliest(
    one: np.ndarray, other: np.ndarray, least: np.ndarray, sources: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest candidates of each set in each source, by their equal least hashes, the likeliest first."""
    agreement = np.zeros(len(one))
    for first in range(0, len(one), _CHUNK):
        part = slice(first, first + _CHUNK)
        agreement[part] = (least[one[part]] == least[other[part]]).mean(axis=1)
    may = np.flatnonzero(agreement >= _MAY)
    order = may[np.lexsort((-agreement[may], sources[other[may]], one[may]))]
    places = one[order] * (int(sources.max(initial=0)) + 1) + sources[other[order]]
    is_first = np.diff(places, prepend=-1) != 0
    rank = np.arange(len(order)) - np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
    return one[order][rank < _TRIES], other[order][rank < _TRIES]


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)
