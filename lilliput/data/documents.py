"""Documents, and the corpus of local files: JSON Lines, Parquet and plain text, plain or compressed."""

import glob
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any, ClassVar, Protocol

from lilliput.base.errors import DataError
from lilliput.base.files import PARTIAL
from lilliput.base.limits import limit, raising
from lilliput.data.lines import whole
from lilliput.data.rows import Record, holds_rows, rows

LINKED = 10_000
"""Folders that `**` may reach through links; links to folders of links double their number at each step."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text."""

    text: str
    id: str
    """Names the document; the same in every run."""
    group: str
    """The unit of the held-out split: documents of one group never land on both sides."""


class Corpus(Protocol):
    """Anything that yields documents; a frozen keyword-only spec, so that a recipe can name it."""

    def documents(self) -> Iterator[Document]:
        """Every document, in an order that never changes."""
        ...

    def identity(self) -> Any:
        """What the documents depend on besides the spec, as a JSON value; another value means other documents."""
        ...


@dataclass(frozen=True, kw_only=True)
class Files:
    """Local files: `.jsonl` or `.parquet` by row, anything else as one UTF-8 document a file.

    All but Parquet may end in `.gz`, `.bz2`, `.xz` or `.zst`. Rows are streamed: no file of rows is held in memory.
    """

    paths: tuple[str, ...]
    """Files, folders (every file below, sorted, hidden ones aside) and glob patterns (sorted), in this order."""
    text: str = "text"
    """Column that holds the text."""
    id: str = "id"
    """Column that names the row; a row without it is "<file name>:<row number>", a plain file its path below the folder
    or the pattern that it was found by: wherever that lies, the same documents are held out."""
    group: str | None = None
    """Column of the held-out group; None: every document is a group of its own."""
    goes_on: ClassVar[bool] = True

    def identity(self) -> list[Any]:
        """Size and time of change of every file."""
        return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files_of(self.paths)]

    def documents(self) -> Iterator[Document]:
        """Yield the documents in the order of the files and of their rows.

        Raises:
            DataError: a file is missing, damaged, not UTF-8, not JSON or without the text column, or none has a row.
        """
        return (document for document, _ in self.marked())

    def marked(self, after: list[Any] | None = None) -> Iterator[tuple[Document, list[Any]]]:
        """The same with marks: the file's place, the record's number, and how much of the file is read."""
        first, number, _ = after or (0, 0, 0.0)
        empty = after is None
        for place, (path, name) in enumerate(named_files(self.paths)):
            if place < first:
                continue
            for document, record, share in self._of_file(path, name, number if place == first else 0):
                empty = False
                yield document, [place, record, share]
        if empty:
            raise nothing_in(self.paths)

    def gauge(self) -> Callable[[list[Any]], float]:
        """What tells how far a mark is, by the bytes of the files."""
        sizes = [path.stat().st_size for path in files_of(self.paths)]
        before = [0, *accumulate(sizes)]
        return lambda mark: (before[mark[0]] + mark[2] * sizes[mark[0]]) / max(1, before[-1])

    def _of_file(self, path: Path, file: str, after: int) -> Iterator[tuple[Document, int, float]]:
        if not holds_rows(path):
            if after == 0:
                yield Document(whole(path), file, file), 1, 1.0
            return
        columns = [self.text, self.id] if self.group is None else [self.text, self.id, self.group]
        for record in rows(path, columns, after):
            yield self._document(record), record.number, record.share

    def _document(self, record: Record) -> Document:
        text = record.text(self.text)
        check_length(record, text)
        name = record.id(self.id)
        return Document(text, name, name if self.group is None else record.name(self.group))


class TextHash:
    """SHA-256 over texts in order; corpora with the same hash train the same model.

    Each step hashes the one before together with its own texts, so that it goes on from what `hex` said.
    """

    def __init__(self, so_far: str = hashlib.sha256().hexdigest()):
        self._digest = bytes.fromhex(so_far)

    def add(self, *parts: str) -> None:
        """Take in the next parts; where one ends and the next begins counts too."""
        step = hashlib.sha256(self._digest)
        for part in parts:
            data = part.encode("utf-8", "surrogatepass")
            step.update(len(data).to_bytes(8, "little") + data)
        self._digest = step.digest()

    def hex(self) -> str:
        """The hash so far, in hex."""
        return self._digest.hex()


def check_length(where: Any, *texts: str) -> None:
    """Refuse texts of one document, or of one conversation, that are longer than the limit `document_bytes`.

    Raises:
        DataError: they are.
    """
    most = limit("document_bytes")
    if 4 * sum(map(len, texts)) > most and sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) > most:
        raise DataError(
            f"the text is longer than {most:,} bytes",
            where=str(where),
            hint=f"cut it into several, or leave it out; {raising('document_bytes')}",
        )


def bytes_of(document: Document) -> int:
    """UTF-8 bytes of a document.

    Raises:
        DataError: it holds what is no text.
    """
    try:
        return len(document.text.encode())
    except UnicodeEncodeError as error:
        raise DataError(
            f"the text holds half a surrogate pair at place {error.start}, which is no text",
            where=f"the document {document.id!r}",
            hint="drop it with a filter, or repair its text",
        ) from error


def corpus_hash(documents: Iterable[Document]) -> str:
    """Hex SHA-256 over ids and texts in order."""
    texts = TextHash()
    for document in documents:
        texts.add(document.id, document.text)
    return texts.hex()


def files_of(paths: tuple[str, ...], where: str = "the paths of a corpus") -> Iterator[Path]:
    """The files that paths, folders and glob patterns stand for; `where` they came from is for the error.

    Raises:
        DataError: one of them stands for no file.
    """
    return (path for path, _ in named_files(paths, where))


def named_files(paths: tuple[str, ...], where: str = "the paths of a corpus") -> Iterator[tuple[Path, str]]:
    """The same files, each with its path below the folder, or below the fixed part of the pattern, it was found by."""
    for name in paths:
        path = base = Path(name).expanduser()
        if path.is_file():
            found, base = [path], path.parent
        elif path.is_dir():
            _refuse_circles(path, where)  # linked folders are read, too: their texts would be missed without a word
            below = (Path(folder, file) for folder, _, files in os.walk(path, followlinks=True) for file in files)
            below = sorted(below, key=lambda file: file.relative_to(path).parts)
            found = [file for file in below if file.is_file() and not _is_hidden(file.relative_to(path))]
        else:
            base = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
            if "**" in path.parts:
                _refuse_circles(base, where)
            matches = (Path(match) for match in glob.glob(str(path), recursive=True))
            found = sorted(match for match in matches if match.is_file())
        if not found:
            raise DataError(
                f"{name!r} is no file" if not path.is_dir() else f"the folder {name!r} holds no file",
                where=where,
                hint=f"check the spelling; relative paths start at {Path.cwd()}",
            )
        yield from ((file, file.relative_to(base).as_posix()) for file in found)


def nothing_in(paths: tuple[str, ...]) -> DataError:
    """The error of a corpus that ended without a single record."""
    return DataError(
        "there is no record in any of the files",
        where=", ".join(paths) or "an empty list of paths",
        hint="point the corpus at files that hold text",
    )


def _is_hidden(relative: Path) -> bool:
    return relative.name.endswith(PARTIAL) or any(part.startswith(".") for part in relative.parts)


def _refuse_circles(base: Path, where: str) -> None:
    """Refuse a folder in which whoever follows links would go round for ever.

    Raises:
        DataError: a folder below leads back to one that it lies in, or links multiply the folders.
    """
    waiting: list[tuple[str, tuple[str, ...], int]] = [(str(base), (os.path.realpath(base),), 0)]
    linked = 0
    while waiting:
        folder, above, links = waiting.pop()
        for name in _folders_in(folder):
            path = os.path.join(folder, name)
            is_link = os.path.islink(path)
            real = os.path.realpath(path) if is_link else os.path.join(above[-1], name)
            linked += bool(links or is_link)
            if real in above or linked > LINKED:
                what = "leads back to one that it lies in" if real in above else f"is one of {linked:,} behind links"
                raise DataError(
                    f"the folder {path!r} {what}",
                    where=where,
                    hint="remove such links, or name the folders one by one instead of with **",
                )
            waiting.append((path, (*above, real), links + is_link))


def _folders_in(folder: str) -> list[str]:
    """Names of the folders that `**` would enter."""
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError:
        return []
    return [name for name in names if os.path.isdir(os.path.join(folder, name))]
