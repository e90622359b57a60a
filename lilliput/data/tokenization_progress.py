"""Progress of tokenizing a corpus: documents, speed, and the time left if the size is known."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from lilliput.data.documents import Corpus
from lilliput.data.resumable import Offset, fraction_read

_DOCUMENTS, _BYTES = 1_024, 4_000_000
"""Documents, or bytes, between two reports."""


@dataclass(frozen=True, kw_only=True)
class TokenizationProgress:
    """A moment of it."""

    documents: int
    """Read from the beginning of the corpus on, with those that filters dropped."""
    kept: int
    """Number of them encoded before an interruption. Up to there they are read again, and not encoded."""
    shards: int
    """Files that were closed then."""
    damaged: tuple[str, ...]
    """Files that were damaged since, and are made again."""
    encoded: int
    """Documents that this process encoded."""
    speed: float | None
    """UTF-8 bytes of text that this process encodes in a second; None until it did."""
    share: float | None
    """Share of the corpus, from 0 to 1; None if its size is not known."""
    left: float | None
    """Seconds, as far as that can be told."""


class Throughput:
    """Tells how far it is.

    Args:
        corpus: that is encoded.
        kept: documents that were encoded before an interruption.
        shards: files that were closed then.
        damaged: those of them that are made again.
        tell: is told.
    """

    def __init__(
        self,
        corpus: Corpus,
        kept: int,
        shards: int,
        damaged: tuple[str, ...],
        tell: Callable[[TokenizationProgress], None],
    ):
        self._kept, self._shards, self._damaged, self._tell = kept, shards, damaged, tell
        self._gauge = fraction_read(corpus)
        self._encoded = self._bytes = self._items = self._size = 0
        """Documents and bytes that were encoded; and those, of all items, since whoever asked was told."""
        self._first: tuple[float, float] | None = None

    def step(self, documents: int, mark: Offset, size: int | None) -> None:
        """Note that so many documents are read, up to a mark, and the UTF-8 bytes of the last one if it was encoded."""
        self._items, self._size = self._items + 1, self._size + (size or 0)
        self._encoded += size is not None
        if self._items >= _DOCUMENTS or self._size >= _BYTES:
            self.update(documents, mark)

    def update(self, documents: int, mark: Offset) -> None:
        """Tell how far it is, where so many documents are read, up to a mark."""
        now, share = time.perf_counter(), None if mark is None else self._gauge(mark)
        share = None if share is None else min(share, 1.0)  # the last text may go beyond a budget
        speed = left = None
        if self._first is not None:
            self._bytes += self._size
            begun, before = self._first
            speed = self._bytes / max(now - begun, 1e-9)
            if share is not None and share > before:
                left = (now - begun) * (1 - share) / (share - before)
        elif documents >= self._kept:  # from here on: reading again takes another time
            self._first = now, share or 0.0
        self._items = self._size = 0
        self._tell(
            TokenizationProgress(
                documents=documents,
                kept=self._kept,
                shards=self._shards,
                damaged=self._damaged,
                encoded=self._encoded,
                speed=speed,
                share=share,
                left=left,
            )
        )
