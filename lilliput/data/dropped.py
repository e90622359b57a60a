"""Samples of what was dropped on the way to token files, for whoever wants to see whether a filter is right.

Of each reason the 1st, 2nd, 4th, 8th, ... item is kept: few, from all over the corpus, and the same ones after a kill.
They lie beside the token files and are no part of their index.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lilliput.data.documents import Document
from lilliput.data.readers.rows import read_back

DROPPED = "dropped.jsonl"
EXCERPT = 600
"""Characters of a sample."""


class Dropped(str):
    """The reason for dropping a document, with the document's id and the beginning of its text."""

    id: str
    excerpt: str

    @classmethod
    def of(cls, reason: str, document: Document) -> Self:
        """The reason for dropping this document."""
        found = cls(reason)
        found.id, found.excerpt = document.id, document.text[:EXCERPT]
        return found


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
        self._samples: list[Sample] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._samples and error[0] is None:
            self._path.write_bytes(b"".join(sample.line() for sample in self._samples))

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
