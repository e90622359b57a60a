"""Files of a curation, each whole or not there: documents as compressed JSON Lines, records of what was dropped."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow

from lilliput.base import files
from lilliput.base.files import PARTIAL, write_json
from lilliput.data.documents import Document
from lilliput.data.readers.lines import lines
from lilliput.data.readers.rows import ESCAPED

SAMPLES = 5
"""Documents of a reason that a task keeps for whoever looks."""
CHARACTERS = 1_000
"""Characters of each of them."""
SUFFIX = ".jsonl.zst"
_BLOCK = 1 << 20
"""Bytes of lines that are compressed at a time."""
_FAST = -10
"""Level of zstd for what the next stage reads and nothing after it: a third of the time, twice the size."""
_RARE = bytes(code for code in range(0x20) if code != ord("\n"))
"""Characters with escapes of their own, those that most texts have aside."""
_JSON = json.JSONEncoder(ensure_ascii=False)


def write_lines(path: Path, lines: Iterable[bytes], *, is_last: bool) -> Iterator[bytes]:
    """Write lines to a file, which appears once it has all of them, and pass each on.

    Args:
        path: the file.
        lines: as `line_of` makes them.
        is_last: is for others to read: one frame of zstd, as some readers stop after the first one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    with (_in_one_frame if is_last else _in_frames)(partial) as write:
        block = bytearray()
        for line in lines:
            block += line
            if len(block) >= _BLOCK:
                write(block)
                block = bytearray()
            yield line
        write(block)
    files.boundary("fsync", path)
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    files.boundary("rename", path)
    os.replace(partial, path)


@contextmanager
def _in_one_frame(path: Path) -> Iterator[Callable[[bytearray], object]]:
    with pyarrow.CompressedOutputStream(str(path), "zstd") as stream:
        yield stream.write


@contextmanager
def _in_frames(path: Path) -> Iterator[Callable[[bytearray], object]]:
    codec = pyarrow.Codec("zstd", compression_level=_FAST)
    with path.open("wb") as file:
        yield lambda block: file.write(codec.compress(block))


def line_of(document: Document) -> bytes:
    """A document as a line of JSON."""
    before = {key: value for key, value in document.metadata.items() if key not in ("id", "text", "group")}
    head, tail = before | {"id": document.id}, {"group": document.group} if document.group != document.id else {}
    try:
        end = b", " + _JSON.encode(tail).encode()[1:] if tail else b"}"
        return _JSON.encode(head).encode()[:-1] + b', "text": ' + _quoted(document.text) + end + b"\n"
    except UnicodeEncodeError:  # an unpaired surrogate is written as its escape
        return (json.dumps(head | {"text": document.text} | tail) + "\n").encode()


def _quoted(text: str) -> bytes:
    """A text as JSON has it; several times as fast as the encoder, which looks at each character."""
    data = text.encode()
    if len(data.translate(None, _RARE)) < len(data):
        return _JSON.encode(text).encode()
    return b'"%b"' % data.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file that `write_lines` wrote."""
    return (line for _, line, _ in lines(path, room=ESCAPED))


def document_of(line: bytes) -> Document:
    """The document of a line that `line_of` made."""
    values = json.loads(line)
    text, name = values.pop("text"), values.pop("id")
    return Document(text, name, values.pop("group", name), values)


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
