"""Public text in place of a collection that a model card mentions and only its author has."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lilliput.data.documents import Corpus, Document
from lilliput.data.resumable import FractionRead, Item, Offset, fraction_read, is_seekable, iterate_from


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """A corpus that stands in for another one; `--source NAME=PATH` reads the other one, or one's own, instead.

    Plans, runs and cards say what is missing.
    """

    source: Corpus
    missing: str
    """The collection that is not here, in a few words that follow "in the place of"."""

    def identity(self) -> Any:
        """Return what the source's documents depend on."""
        return self.source.identity()

    @property
    def is_seekable(self) -> bool:
        """Return whether the source does."""
        return is_seekable(self.source)

    def documents(self) -> Iterator[Document]:
        """The source's documents."""
        return self.source.documents()

    def iterate_from(self, after: Offset | None = None) -> Iterator[tuple[Item, Offset]]:
        """The items of the source, with its marks."""
        return iterate_from(self.source, after)

    def fraction_read(self) -> FractionRead:
        """That of the source."""
        return fraction_read(self.source)
