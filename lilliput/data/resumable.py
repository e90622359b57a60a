"""Marks: how reading a corpus goes on in another process, after what was read before.

Most corpora can only be read from their beginning. One that can do better has `marked`, beside `documents`:

    for item, mark in corpus.marked(after): ...       items from the mark `after` on, or from the first where it is None
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

from lilliput.data.documents import Corpus, Document

Mark = Any
"""A JSON value that says where a corpus was read to; only the corpus that gave it can read it."""
Item = Document | str
"""A document, or the reason why a filter dropped one."""
Gauge = Callable[[Mark], float | None]
"""The share of a corpus, from 0 to 1, that lies before a mark; None where it is not known."""


@runtime_checkable
class Marked(Protocol):
    """A corpus that says where it stands."""

    @property
    def goes_on(self) -> bool:
        """Whether it can be read from a mark on. If not, marks only tell how far it is."""
        ...

    def marked(self, after: Mark | None = None) -> Iterator[tuple[Item, Mark]]:
        """Items, each with the mark after it; those that filters dropped too."""
        ...

    def gauge(self) -> Gauge:
        """What tells how far a mark is."""
        ...


def marked(corpus: Corpus, after: Mark | None = None) -> Iterator[tuple[Item, Mark]]:
    """The items of any corpus, each with the mark after it; None where it gives no marks."""
    if isinstance(corpus, Marked):
        return corpus.marked(after)
    assert after is None, "a corpus without marks is read from its beginning"
    return ((document, None) for document in corpus.documents())


def goes_on(corpus: Corpus) -> bool:
    """Whether a corpus can be read from a mark on."""
    return isinstance(corpus, Marked) and corpus.goes_on


def gauge(corpus: Corpus) -> Gauge:
    """What tells how far a mark of a corpus is."""
    return corpus.gauge() if isinstance(corpus, Marked) else lambda mark: None
