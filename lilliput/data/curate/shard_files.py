"""Files of a curation, each whole or not there: documents as compressed JSON Lines, records of what was dropped."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow

from lilliput.base import files
from lilliput.base.files import PARTIAL, write_json
from lilliput.data.documents import Document
from lilliput.data.readers.rows import read_back

SAMPLES = 5
"""Documents of a reason that a task keeps for whoever looks."""
CHARACTERS = 1_000
"""Characters of each of them."""
SUFFIX = ".jsonl.zst"


def write_documents(path: Path, documents: Iterable[Document]) -> Iterator[Document]:
    """Write documents to a file, which appears once it has all of them, and pass each on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    with pyarrow.CompressedOutputStream(str(partial), "zstd") as stream:
        for document in documents:
            stream.write(_line(document))
            yield document
    files.boundary("fsync", path)
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    files.boundary("rename", path)
    os.replace(partial, path)


def _line(document: Document) -> bytes:
    row = {**document.metadata, "id": document.id, "text": document.text}
    row |= {"group": document.group} if document.group != document.id else {}
    try:
        return (json.dumps(row, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # an unpaired surrogate is written as its escape
        return (json.dumps(row) + "\n").encode()


def read_documents(path: Path) -> Iterator[Document]:
    """The documents of a file that `write_documents` wrote."""
    for record in read_back(path):
        values = dict(record.values)
        text, name = values.pop("text"), values.pop("id")
        yield Document(text, name, values.pop("group", name), values)


@dataclass
class Drops:
    """Documents that a step dropped: how many for each reason, and the first of them."""

    counts: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def add(self, reason: str, document: Document | None = None) -> None:
        """Count a document, and keep it while there are few of its reason."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        kept = self.samples.setdefault(reason, [])
        if document is not None and len(kept) < SAMPLES:
            text = document.text[:CHARACTERS].encode(errors="replace").decode()
            kept.append({"id": document.id, "text": text})

    def merge(self, other: dict[str, Any]) -> None:
        """Take in what another task dropped, as `write` wrote it."""
        for reason, count in other["counts"].items():
            self.counts[reason] = self.counts.get(reason, 0) + count
            kept = self.samples.setdefault(reason, [])
            kept += other["samples"][reason][: SAMPLES - len(kept)]

    def write(self, path: Path, **facts: int) -> None:
        """Write it to a file, beside other facts."""
        write_json(path, {"counts": self.counts, "samples": self.samples} | facts)
