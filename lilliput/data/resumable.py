"""Marks: how reading a corpus resumes in another process, after what was read before.

Most corpora can only be read from their beginning. One that can do better has `iterate_from`, beside `documents`:

    for item, mark in corpus.iterate_from(after): ... items from the mark `after` on, or from the first where it is None
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from lilliput.data.documents import Corpus, Document, TextHash

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


@dataclass(frozen=True, kw_only=True)
class Position:
    """Position of reading in a corpus, with what was seen up to it."""

    items: int = 0
    """Documents, those that filters dropped too."""
    mark: Offset | None = None
    text: str = TextHash().hex()
    """`TextHash` of the documents that were kept."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Number of documents dropped by filters, by reason."""


class CorpusProgress:
    """A position that moves on, item by item."""

    def __init__(self, start: Position):
        self.items, self.mark = start.items, start.mark
        self._texts, self._dropped = TextHash(start.text), Counter(start.dropped)

    def step(self, item: Item, mark: Offset | None) -> None:
        """Go past an item."""
        if isinstance(item, str):
            self._dropped[item] += 1
        else:
            self._texts.add(item.id, item.text)
        self.items, self.mark = self.items + 1, mark

    def position(self) -> Position:
        """Return where it stands now."""
        dropped = dict(sorted(self._dropped.items()))
        return Position(items=self.items, mark=self.mark, text=self._texts.hex(), dropped=dropped)
