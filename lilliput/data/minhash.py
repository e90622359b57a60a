"""MinHash of texts for near-duplicates: keys that two texts have in common the more often, the more they share.

A text is the set of its runs of five words (lower case, punctuation left out). Of the set, rensa makes a signature; of
the signature, buckets of hashes make keys (Broder 1997; Leskovec et al., Mining of Massive Datasets, chapter 3). Two
texts that share a part s of their runs have a key in common with probability 1 - (1 - s^hashes)^buckets.

Words and runs are hashed in NumPy: of a word its first and last eight bytes and its length, so that no object is made
for a word and none of its bytes is read alone.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from lilliput.base.errors import RecipeError
from lilliput.data.splitmix64 import mixed

BATCH = 1 << 19
"""Characters of texts that are hashed together: few calls for many short texts, and arrays that fit a cache."""
SEED = 1
"""Seed of rensa's hashes: keys of two machines agree."""
_SPACE = 0x20
_PAD = 16
"""Blanks around the texts, so that eight bytes can be read at any word's ends."""
_TABLE = bytes(byte if byte > 127 or chr(byte).isalnum() else _SPACE for byte in range(256))
_SIGNS = re.compile(rb"\xe2\x80[\x80-\xaf]")
"""Quotation marks, dashes and spaces beyond Latin, U+2000 to U+202F, in UTF-8."""
_NO_BREAK = b"\xc2\xa0"
_MASKS = np.array([(1 << 8 * size) - 1 for size in range(9)], dtype="<u8")
"""Masks of the first bytes of eight, by their number."""
_FACTORS = tuple(np.uint64(pow(0x9E3779B97F4A7C15, power, 1 << 64)) for power in range(1, 65))


@dataclass(frozen=True, kw_only=True)
class MinHash:
    """Keys of texts.

    With 14 buckets of 8 hashes, as FineWeb has them, texts that share 0.7 of their runs of words meet in every second
    case, with 0.8 in 92 of 100, with 0.5 in 5.
    """

    n: int = 5
    """Words of a run; shorter texts have no keys."""
    buckets: int = 14
    hashes: int = 8
    """Hashes of a bucket."""

    def __post_init__(self) -> None:
        for name, number, most in (("n", self.n, 64), ("buckets", self.buckets, 256), ("hashes", self.hashes, 64)):
            if not 1 <= number <= most:
                raise RecipeError(f"{name} cannot be {number}", where="MinHash", hint=f"give 1 to {most}")

    def keys(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the keys of texts that have any, a row a text and a column a bucket, and which texts these are."""
        runs, ends = run_hashes(texts, self.n)
        counts = np.diff(ends, prepend=0)
        there = np.flatnonzero(counts)
        if not len(there):
            return np.zeros((0, self.buckets), dtype=np.uint64), there
        rows = self._signatures(runs, np.concatenate([[0], ends[there]]))
        return self._bucket_keys(rows), there

    def keys_of(self, texts: Iterable[str]) -> Iterator[np.ndarray | None]:
        """Yield the keys of each of many texts; None for one that has none."""
        batch: list[str] = []
        size = 0
        for text in chain(texts, (None,)):
            if text is not None:
                batch.append(text)
                size += len(text)
            if batch and (text is None or size >= BATCH):
                keys, there = self.keys(batch)
                found: list[np.ndarray | None] = [None] * len(batch)
                for row, index in zip(keys, there.tolist(), strict=True):
                    found[index] = row
                yield from found
                batch, size = [], 0

    def _signatures(self, runs: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """The least hashes of sets of runs, a row a set."""
        from rensa import RMinHash  # type: ignore[reportAttributeAccessIssue], it has no stubs

        size = 1 << (self.buckets * self.hashes - 1).bit_length()  # rensa is fastest with powers of two
        made = RMinHash.digest_matrix_from_flat_token_hashes(runs, ends.astype(np.uint64), size, SEED)
        return np.array(made.to_rows(), dtype=np.uint32)[:, : self.buckets * self.hashes]

    def _bucket_keys(self, signatures: np.ndarray) -> np.ndarray:
        """One hash of the hashes of each bucket; those of two buckets differ."""
        hashes = signatures.reshape(len(signatures), self.buckets, self.hashes).astype(np.uint64)
        factors = np.array(_FACTORS[: self.hashes], dtype=np.uint64)
        keys = (hashes * factors).sum(axis=2, dtype=np.uint64)
        return mixed(keys + np.arange(self.buckets, dtype=np.uint64) * _FACTORS[-1])


def run_hashes(texts: Sequence[str], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return hashes of all runs of n words, text by text, and where the runs of each text end."""
    parts = list(map(_plain, texts))
    pad = b" " * _PAD
    data = pad + b" ".join(parts).translate(_TABLE) + pad
    bounds = _PAD + np.cumsum([len(part) + 1 for part in parts])  # where the next text begins
    is_word = np.frombuffer(data, dtype=np.uint8) != _SPACE
    edges = np.flatnonzero(is_word[1:] != is_word[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    words = _word_hashes(data, starts, ends)
    text_ends = np.searchsorted(starts, bounds)  # as words
    if len(words) < n:
        return words[:0], np.zeros(len(texts), dtype=np.int64)
    count = len(words) - n + 1
    runs = words[:count] * _FACTORS[0]
    for offset in range(1, n):
        runs += words[offset : offset + count] * _FACTORS[offset]
    whole = np.ones(count, dtype=bool)
    for end in text_ends[:-1].tolist():
        whole[max(0, end - n + 1) : end] = False  # a run that begins here ends in the next text
    sizes = np.maximum(0, np.diff(text_ends, prepend=0) - n + 1)
    return mixed(runs[whole]), np.cumsum(sizes)


def _plain(text: str) -> bytes:
    """A text in lower case and UTF-8, without the signs that stand for those of ASCII."""
    data = text.lower().encode("utf-8", "surrogatepass")
    return data if text.isascii() else _SIGNS.sub(b" ", data).replace(_NO_BREAK, b" ")


def _word_hashes(data: bytes, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """A hash of each word: of its first and last eight bytes, and of its length."""
    eights = np.ndarray(len(data) - 7, dtype="<u8", buffer=data, strides=(1,))
    sizes = ends - starts
    first = eights[starts] & _MASKS[np.minimum(sizes, 8)]
    last = eights[ends - 8] * (sizes > 8)
    return mixed(first * _FACTORS[1] + last * _FACTORS[2] + sizes.astype(np.uint64) * _FACTORS[3])
