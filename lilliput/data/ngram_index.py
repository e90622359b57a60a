"""Index of word 13-grams of benchmark items: names the tasks that a text overlaps.

Texts are normalized as in decontamination elsewhere (Brown et al. 2020, arXiv 2005.14165; the harness's janitor):
lower case, punctuation removed, words between white space. A text overlaps a task if it has 13 words in a row with one
of its items. An item of 8 to 12 words has to be there whole; shorter ones are everyday phrases, so they are counted
and not indexed.

Words and n-grams are 64-bit hashes in NumPy arrays. A hash of a run of numbers is the difference of two prefix sums,
`sum(value[i] * base^i)`, times the inverse power of where the run begins, all modulo 2^64: no object is made for a
word or an n-gram, and one core looks through some 50 MB of text a second. The chance that a text of a million words
seems to overlap an index of a million n-grams, and does not, is 1e-7.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lilliput.base.errors import DataError
from lilliput.base.files import write_bytes
from lilliput.data.splitmix64 import mixed

N = 13
"""Words of an n-gram."""
LEAST = 8
"""Words of the shortest items that are indexed."""
BATCH = 1 << 18
"""Characters of texts that are searched together: their arrays stay in the cache."""

_SPACE, _BOUNDARY = 0x20, 0x01
_DELETED = bytes(byte for byte in range(128) if not (chr(byte).isalnum() or chr(byte).isspace() or byte == _BOUNDARY))
_SIGNS = re.compile(
    "[\u0080-\u009f\u00a1-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf\u200b-\u200f\u2010-\u2027]"
)
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
_BITS = 22
"""Bits of a hash that are looked up before the whole hash is, twice: hardly a run of a text is left after that."""


@dataclass(frozen=True)
class Items:
    """Number of items of a task in an index."""

    indexed: int = 0
    short: int = 0
    """Items of less than `LEAST` words, which are not indexed."""


@dataclass
class _Task:
    """Hashes of a task's items, and their counts."""

    hashes: list[np.ndarray] = field(default_factory=list)
    indexed: int = 0
    short: int = 0


class NgramIndex:
    """Tasks by the n-grams of their items.

    Args:
        items: pairs of a task's name and the text of one of its items.
    """

    def __init__(self, items: Iterable[tuple[str, str]]):
        tasks: dict[str, _Task] = {}
        sizes: set[int] = set()
        begins = [_NONE]
        for task, text in items:
            found = tasks.setdefault(task, _Task())
            words, _ = _words(text)
            if len(words) < LEAST:
                found.short += 1
                continue
            size = min(N, len(words))
            sizes.add(size)
            found.hashes.append(words.hashes(size))
            found.indexed += 1
            begins.append(words.hashes(LEAST)[: len(words) - size + 1])
        self.items = {task: Items(found.indexed, found.short) for task, found in tasks.items()}
        """Counts by task."""
        self._tasks = tuple(tasks)
        self._sizes = tuple(sorted(sizes, reverse=True))
        each = [np.unique(np.concatenate(found.hashes)) if found.hashes else _NONE for found in tasks.values()]
        keys = np.concatenate([_NONE, *each])
        owners = np.repeat(np.arange(len(each)), [len(one) for one in each])
        order = np.argsort(keys, kind="stable")
        self._keys, self._owners = keys[order], owners[order]
        self._begins = np.unique(np.concatenate(begins))
        self._fill_tables()

    def _fill_tables(self) -> None:
        self._may = tuple(np.zeros(1 << _BITS, dtype=bool) for _ in range(2))
        for table, bits in zip(self._may, _parts(self._begins), strict=True):
            table[bits] = True

    def write(self, path: Path) -> None:
        """Write the index to a file, whole or not at all."""
        facts = {
            "tasks": self._tasks,
            "sizes": self._sizes,
            "items": {key: asdict(one) for key, one in self.items.items()},
        }
        arrays = {"keys": self._keys, "owners": self._owners.astype(np.int64), "begins": self._begins}
        write_bytes(path, save(arrays, {"index": json.dumps(facts)}))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read an index that `write` wrote.

        Raises:
            DataError: the file is not there, or is none.
        """
        index = cls(())
        try:
            with safe_open(path, framework="numpy") as file:
                facts = json.loads(file.metadata()["index"])
                index._keys, index._owners, index._begins = map(file.get_tensor, ("keys", "owners", "begins"))
            index._tasks, index._sizes = tuple(facts["tasks"]), tuple(facts["sizes"])
            index.items = {key: Items(**one) for key, one in facts["items"].items()}
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"this is no index of evaluation sets ({error})",
                where=str(path),
                hint="lilliput curate writes one; or write it with NgramIndex(items).write(path)",
            ) from error
        index._fill_tables()
        return index

    @property
    def sha256(self) -> str:
        """Hash of everything that decides what overlaps."""
        digest = hashlib.sha256(repr((self._tasks, self._sizes)).encode())
        digest.update(self._keys.tobytes())
        digest.update(self._owners.astype(np.int64).tobytes())
        return digest.hexdigest()

    def overlaps(self, text: str) -> tuple[str, ...]:
        """Return the names of the tasks that a text overlaps, in the order of the index."""
        return self._overlaps([text])[0]

    def overlaps_of(self, texts: Iterable[str]) -> Iterator[tuple[str, ...]]:
        """Yield the same for each of many texts, which is faster where they are short."""
        batch: list[str] = []
        size = 0
        for text in texts:
            batch.append(text)
            size += len(text)
            if size >= BATCH:
                yield from self._overlaps(batch)
                batch, size = [], 0
        yield from self._overlaps(batch)

    def _overlaps(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        found: list[set[int]] = [set() for _ in texts]
        words, boundaries = _words(*texts)
        candidates = self._candidates(words.hashes(LEAST))
        for size in self._sizes if len(candidates) else ():
            starts = candidates[candidates <= len(words) - size]
            hashes = words.hashes(size, starts)
            first = np.searchsorted(self._keys, hashes, side="left")
            last = np.searchsorted(self._keys, hashes, side="right")
            hits = np.flatnonzero(last > first)
            places = np.searchsorted(boundaries, starts[hits])
            for hit, place in zip(hits.tolist(), places.tolist(), strict=True):
                found[place].update(self._owners[first[hit] : last[hit]].tolist())
        return [tuple(self._tasks[index] for index in sorted(one)) for one in found]

    def _candidates(self, hashes: np.ndarray) -> np.ndarray:
        """The places where n-grams begin, given the hashes of all runs of `LEAST` words."""
        found = np.arange(len(hashes))
        for table, bits in zip(self._may, _parts(hashes), strict=True):
            found = found[table[bits[found]]]
        place = np.searchsorted(self._begins, hashes[found])
        return found[self._begins.take(place, mode="clip") == hashes[found]] if len(self._begins) else found


def _parts(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two parts of hashes that have no bit in common."""
    return hashes >> np.uint64(64 - _BITS), hashes & np.uint64((1 << _BITS) - 1)


def _table() -> bytes:
    """The byte that each byte becomes: a small letter, a digit or a space; those of UTF-8 stay."""
    table = bytearray(range(256))
    for byte in range(128):
        table[byte] = _SPACE if chr(byte).isspace() else ord(chr(byte).lower())
    return bytes(table)


_ODD = np.uint64(0x9E3779B97F4A7C15)
_ODD_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
_NONE = np.zeros(0, dtype=np.uint64)
_TABLE = _table()
# Of each byte, a number that is the same on all machines: sums of small numbers would meet too often.
_BYTE_VALUES = np.frombuffer(hashlib.shake_256(b"word hashes").digest(8 * 256), dtype="<u8").astype(np.uint64)


class _Powers:
    """Powers of the base and of its inverse, as many as have been needed."""

    def __init__(self) -> None:
        self._powers = self._inverses = np.ones(1, dtype=np.uint64)

    def __call__(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        if count > len(self._powers):
            size = 1 << (count - 1).bit_length()
            self._powers, self._inverses = (_geometric(base, size) for base in (_ODD, _ODD_INVERSE))
        return self._powers[:count], self._inverses[:count]


def _geometric(base: np.uint64, size: int) -> np.ndarray:
    powers = np.full(size, base, dtype=np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


_powers = _Powers()


class _Runs:
    """Hashes of runs of 64-bit numbers, from sums that are made once."""

    def __init__(self, values: np.ndarray):
        powers, self._inverses = _powers(len(values))
        self._sums = np.zeros(len(values) + 1, dtype=np.uint64)
        np.cumsum(values * powers, out=self._sums[1:])

    def __len__(self) -> int:
        return len(self._inverses)

    def hashes(self, size: int, starts: np.ndarray | None = None) -> np.ndarray:
        """Return the hashes of all runs of a size, or of those that begin at `starts`."""
        if starts is not None:
            return self.between(starts, starts + size)
        count = max(0, len(self) - size + 1)
        return mixed((self._sums[size : size + count] - self._sums[:count]) * self._inverses[:count])

    def between(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Return the hashes of runs of any size."""
        return mixed((self._sums[ends] - self._sums[starts]) * self._inverses[starts])


def _words(*texts: str) -> tuple[_Runs, np.ndarray]:
    """The words of texts, and the places of those that only stand for the boundaries between texts."""
    text = " \x01 ".join(one.replace("\x01", "") if "\x01" in one else one for one in texts)
    if not text.isascii():
        text = _SPACES.sub(" ", _SIGNS.sub("", text.lower()))
    plain = text.encode("utf-8", "surrogatepass").translate(_TABLE, _DELETED)
    kept = np.frombuffer(plain, dtype=np.uint8)
    is_word = np.ones(len(kept) + 2, dtype=bool)
    is_word[0] = is_word[-1] = False
    np.not_equal(kept, _SPACE, out=is_word[1:-1])
    edges = np.flatnonzero(is_word[1:] != is_word[:-1])
    starts, ends = edges[::2], edges[1::2]
    words = _Runs(_Runs(_BYTE_VALUES[kept]).between(starts, ends))
    return words, np.flatnonzero(kept[starts] == _BOUNDARY)
