"""Conversations, or pairs of answers, without those that have an item of an evaluation set in them.

Each is searched as one text, message after message, so that an item is found within a message and where a question is
in one and its answer in the next.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lilliput.data.corpora.filters.decontaminate import Decontaminate, overlapping
from lilliput.data.dropped import Dropped
from lilliput.data.ngram_index import NgramIndex


class SearchedFormat(Protocol):
    """A format whose items can be searched."""

    def iterate(self, corpus: Any) -> Iterator[Any]:
        """Every item of a corpus, and a `Dropped` for each one that it dropped itself."""
        ...

    def text(self, item: Any) -> str:
        """All of an item as one text, in the order in which it is read."""
        ...


@dataclass(frozen=True, kw_only=True)
class Decontaminated:
    """A corpus without the items that overlap an evaluation set; of those it yields the reason, with the tasks."""

    source: Any
    format: SearchedFormat
    """That of the source, and so of this corpus."""
    index: Path
    """The n-grams of the evaluation sets (`NgramIndex.write`)."""

    def identity(self) -> Any:
        """Return what the source's items depend on."""
        return self.source.identity()

    def iterate(self) -> Iterator[Any]:
        """The source's items that overlap nothing, and a `Dropped` for each of the others, in its order.

        Raises:
            DataError: the index is not there, or damaged.
        """
        index = NgramIndex.read(self.index)
        waiting: deque[tuple[Any, str]] = deque()  # items that are searched together

        def texts() -> Iterator[str]:
            for item in self.format.iterate(self.source):
                text = "" if isinstance(item, Dropped) else self.format.text(item)
                waiting.append((item, text))
                yield text

        for tasks in index.overlaps_of(texts()):
            item, text = waiting.popleft()
            reason = f"{Decontaminate.name}: {overlapping(tasks)}"
            yield Dropped.of(reason, item.id, text) if tasks else item
