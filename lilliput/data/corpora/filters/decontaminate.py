"""Documents that have an item of an evaluation set in them, by an n-gram index in a file."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lilliput.data.corpora.filters import FilterResult
from lilliput.data.documents import Document
from lilliput.data.ngram_index import NgramIndex


@dataclass(frozen=True, kw_only=True)
class Decontaminate:
    """Documents with no 13 words in a row of an item of any task, and no whole item of 8 to 12 words.

    `lilliput curate` writes the index of the sets that a recipe's releases are judged by, and applies it.
    """

    name: ClassVar[str] = "decontaminate"
    remembers: ClassVar[bool] = False

    index: str
    """Path of the file (`NgramIndex.write`)."""

    def begin(self) -> Callable[[Document], FilterResult]:
        """A function of one document that remembers nothing.

        Raises:
            DataError: the index is not there, or damaged.
        """
        index = NgramIndex.read(Path(self.index))

        def step(document: Document) -> FilterResult:
            tasks = index.overlaps(document.text)
            return overlapping(tasks) if tasks else document

        return step


def overlapping(tasks: Iterable[str]) -> str:
    """The reason for dropping what overlaps items of these tasks."""
    return f"overlaps {', '.join(tasks)}"
