"""Marks: how reading a corpus resumes in another process, after what was read before.

Most corpora can only be read from their beginning. One that can do better has `marked`, beside `documents`:

    for item, mark in corpus.marked(after): ...       items from the mark `after` on, or from the first where it is None
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

from lilliput.data.documents import Corpus, Document

Offset = Any
"""A JSON value that says where a corpus was read to; only the corpus that gave it can read it."""
Item = Document | str
"""A document, or the reason why a filter dropped one."""
FractionRead = Callable[[Offset], float | None]
"""The share of a corpus, from 0 to 1, that lies before a mark; None where it is not known."""


@runtime_checkable
class Resumable(Protocol):
    """A corpus that says where it stands."""

    @property
    def is_seekable(self) -> bool:
        """Return whether it can be read from a mark on. If not, marks only tell how far it is."""
        ...

    def iterate_from(self, after: Offset | None = None) -> Iterator[tuple[Item, Offset]]:
        """Items, each with the mark after it; those that filters dropped too."""
        ...

    def fraction_read(self) -> FractionRead:
        """Return what tells how far a mark is."""
        ...


def iterate_from(corpus: Corpus, after: Offset | None = None) -> Iterator[tuple[Item, Offset]]:
    """The items of any corpus, each with the mark after it; None where it gives no marks."""
    if isinstance(corpus, Resumable):
        return corpus.iterate_from(after)
    assert after is None, "a corpus without marks is read from its beginning"
    return ((document, None) for document in corpus.documents())


def is_seekable(corpus: Corpus) -> bool:
    """Return whether a corpus can be read from a mark on."""
    return isinstance(corpus, Resumable) and corpus.is_seekable


def fraction_read(corpus: Corpus) -> FractionRead:
    """Return what tells how far a mark of a corpus is."""
    return corpus.fraction_read() if isinstance(corpus, Resumable) else lambda mark: None
