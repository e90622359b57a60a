"""Texts that are nearly the same as an earlier one, by the runs of five words that they share (MinHash, Broder 1997).

A text is a set of hashes, of its runs of five words. Bands of least hashes find candidates among what came before, and
a candidate counts if the sets have enough in common. Short texts are never near duplicates: "Yes." answers many.
"""

import hashlib
import re

import numpy as np

RUN = 5
"""Words of a run."""
LEAST = 13
"""Words of the shortest text that is compared."""
BANDS, ROWS = 16, 4
"""Candidates share all least hashes of a band: at a likeness of 0.8, all but one in four thousand are found."""
_WORDS = re.compile(r"\w+")
_SALTS = np.frombuffer(hashlib.shake_256(b"minhash").digest(16 * BANDS * ROWS), dtype="<u8").astype(np.uint64)
MULTIPLIERS, OFFSETS = _SALTS[: BANDS * ROWS, None] | np.uint64(1), _SALTS[BANDS * ROWS :, None]


class NearDuplicates:
    """Texts met so far.

    Args:
        likeness: share of their runs of words, of all that either has, that near duplicates have in common at least.
    """

    def __init__(self, likeness: float = 0.8):
        self._likeness = likeness
        self._bands: list[dict[bytes, list[int]]] = [{} for _ in range(BANDS)]
        self._sets: list[np.ndarray] = []

    def add(self, text: str) -> bool:
        """Take in a text unless it nearly is an earlier one; return whether it is."""
        words = _WORDS.findall(text.casefold())
        if len(words) < LEAST:
            return False
        runs = {" ".join(words[place : place + RUN]) for place in range(len(words) - RUN + 1)}
        digests = b"".join(hashlib.blake2b(run.encode("utf-8", "replace"), digest_size=8).digest() for run in runs)
        hashes = np.sort(np.frombuffer(digests, dtype="<u8").astype(np.uint64))
        least = (hashes * MULTIPLIERS + OFFSETS).min(axis=1)
        keys = [band.tobytes() for band in least.reshape(BANDS, ROWS)]
        candidates = {one for band, key in zip(self._bands, keys, strict=True) for one in band.get(key, ())}
        if any(self._is_near(hashes, self._sets[one]) for one in candidates):
            return True
        for band, key in zip(self._bands, keys, strict=True):
            band.setdefault(key, []).append(len(self._sets))
        self._sets.append(hashes)
        return False

    def _is_near(self, one: np.ndarray, other: np.ndarray) -> bool:
        both = len(np.intersect1d(one, other, assume_unique=True))
        return both >= self._likeness * (len(one) + len(other) - both)
