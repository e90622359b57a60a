"""Samples of what was dropped on the way to token files, for whoever wants to see whether a filter is right.

Of each reason the 1st, 2nd, 4th, 8th, ... item is kept: few, from all over the corpus, and the same ones after a kill.
They lie beside the token files and are no part of their index.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from lilliput.data.readers.rows import read_back

T = TypeVar("T")

DROPPED = "dropped.jsonl"
EXCERPT = 600
"""Characters of a sample."""


class Dropped(str):
    """The reason for dropping an item of a corpus, with the item's id and the beginning of its text."""

    id: str
    excerpt: str

    @classmethod
    def of(cls, reason: str, id: str, text: str) -> Self:
        """The reason for dropping the item of this id and text."""
        found = cls(reason)
        found.id, found.excerpt = id, text[:EXCERPT]
        return found


def iterate(corpus: Any, method: str) -> Iterator[Any]:
    """The items of a corpus, and the reasons for which it dropped others if it tells them: if it has an `iterate`.

    Args:
        corpus: of conversations or pairs; of documents, see `data.resumable`.
        method: the one that yields its items alone.
    """
    return getattr(corpus, "iterate" if hasattr(corpus, "iterate") else method)()


def kept(items: Iterable[T | Dropped]) -> Iterator[T]:
    """The items among those with reasons for dropping others."""
    return (item for item in items if not isinstance(item, Dropped))


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An item that was dropped."""

    reason: str
    number: int
    """Place among those dropped for the same reason, from 1."""
    id: str
    text: str

    def line(self) -> bytes:
        """The sample as a JSON line."""
        id, text = (part[:EXCERPT].encode(errors="replace").decode() for part in (self.id, self.text))
        return json.dumps({"reason": self.reason, "number": self.number, "id": id, "text": text}).encode() + b"\n"


def is_sampled(number: int) -> bool:
    """Return whether the item at this place among those dropped for the same reason, from 1, is a sample."""
    return number & (number - 1) == 0


class DropSamples:
    """Samples of a corpus that is encoded in one go; a context manager that writes them at its end, if there are any.

    Args:
        folder: of the token files.
    """

    def __init__(self, folder: Path):
        self._path, self._counts = folder / DROPPED, Counter[str]()
        self.by_corpus: Counter[str] = Counter()
        """Number of items that the corpus itself dropped, by reason."""
        self._samples: list[Sample] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._samples and error[0] is None:
            self._path.write_bytes(b"".join(sample.line() for sample in self._samples))

    def kept(self, items: Iterable[T | Dropped]) -> Iterator[T]:
        """Yield the items, and take note of the others."""
        for item in items:
            if isinstance(item, Dropped):
                self.by_corpus[str(item)] += 1
                self.add(str(item), item.id, item.excerpt)
            else:
                yield item

    def add(self, reason: str, id: str, text: str) -> None:
        """Take note of an item that is dropped."""
        self._counts[reason] += 1
        number = self._counts[reason]
        if is_sampled(number):
            self._samples.append(Sample(reason=reason, number=number, id=id, text=text[:EXCERPT]))


def read_samples(folder: Path) -> list[Sample]:
    """The samples beside token files; none where nothing was dropped, or an earlier version wrote them.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / DROPPED
    if not path.is_file():
        return []
    return [
        Sample(
            reason=record.text("reason"),
            number=int(record.column("number")),
            id=record.text("id"),
            text=record.text("text"),
        )
        for record in read_back(path)
    ]
