"""Documents that nearly are an earlier one, by MinHash (`lilliput.data.minhash`)."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lilliput.data.corpora.filters import FilterResult
from lilliput.data.corpora.filters.datatrove_filter import not_installed
from lilliput.data.documents import Document
from lilliput.data.key_set import KeySet
from lilliput.data.minhash import MinHash


@dataclass(frozen=True, kw_only=True)
class NearDuplicates:
    """Documents that share all hashes of no bucket with any document before them, whatever became of that one.

    The defaults are FineWeb's: a document goes in 92 of 100 cases where 0.8 of its runs of words and of another one's
    are the same, in 5 of 100 where half are. It takes 200 to 400 bytes of memory a document.
    """

    name: ClassVar[str] = "near duplicates"
    reason: ClassVar[str] = "near duplicate"

    n: int = 5
    """Words of a run; shorter documents stay."""
    buckets: int = 14
    hashes: int = 8
    """Hashes of a bucket."""

    def __post_init__(self) -> None:
        self._minhash()

    def begin(self) -> Callable[[Document], FilterResult]:
        """A function that remembers the keys of all documents that it has met.

        Raises:
            RecipeError: rensa is not installed.
        """
        try:
            import rensa  # noqa: F401, imported again where it is called
        except ImportError as error:
            raise not_installed("rensa", type(self).__name__) from error
        minhash, seen = self._minhash(), KeySet()

        def step(document: Document) -> FilterResult:
            keys, there = minhash.keys((document.text,))
            return self.reason if len(there) and seen.add(keys[0]) else document

        return step

    def keys_of(self, texts: Iterable[str]) -> Iterator[np.ndarray | None]:
        """Yield a key a bucket of each text, which goes if any of them was there before; None for a short one."""
        return self._minhash().keys_of(texts)

    def _minhash(self) -> MinHash:
        return MinHash(n=self.n, buckets=self.buckets, hashes=self.hashes)
