"""Documents, and the corpus of local files: JSON Lines, Parquet and plain text, plain or compressed."""

import bz2
import glob
import gzip
import hashlib
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any, ClassVar, Protocol

from lilliput.base.errors import DataError
from lilliput.base.files import PARTIAL

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
"""Suffixes of the compressions that are undone while reading."""


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
                yield _whole(path, file), 1, 1.0
            return
        for number, row, share in _rows(path, after):
            text = column(row, self.text, path=path, number=number)
            if not isinstance(text, str):
                raise DataError(
                    f"column {self.text!r} is {text!r:.60}, not text",
                    where=f"{path}, record {number}",
                    hint=f"drop such rows, or name another column (this row has: {', '.join(row)})",
                )
            name = row_id(row, self.id, path=path, number=number)
            group = name if self.group is None else str(column(row, self.group, path=path, number=number))
            yield Document(text, name, group), number, share


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
            below = sorted(path.rglob("*"), key=lambda file: file.relative_to(path).parts)
            found = [file for file in below if file.is_file() and not _is_hidden(file.relative_to(path))]
        else:
            matches = (Path(match) for match in glob.glob(str(path), recursive=True))
            found = sorted(match for match in matches if match.is_file())
            base = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
        if not found:
            raise DataError(
                f"{name!r} is no file" if not path.is_dir() else f"the folder {name!r} holds no file",
                where=where,
                hint=f"check the spelling; relative paths start at {Path.cwd()}",
            )
        yield from ((file, file.relative_to(base).as_posix()) for file in found)


def holds_rows(path: Path) -> bool:
    """Whether a file is JSON Lines or Parquet, by its name."""
    return kind_of(path) in (".jsonl", ".parquet")


def kind_of(path: Path) -> str:
    """The suffix of a file, without that of its compression."""
    return (path.with_suffix("") if path.suffix in COMPRESSED else path).suffix


def rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a JSON Lines or Parquet file with their numbers from 1; blank lines are counted and passed over.

    Raises:
        DataError: the file is damaged, not UTF-8 or not JSON; the record number is named.
    """
    return ((number, row) for number, row, _ in _rows(path))


def column(row: dict[str, Any], name: str, *, path: Path, number: int) -> Any:
    """A row's value under a name.

    Raises:
        DataError: the row has no such column.
    """
    if name not in row:
        raise DataError(
            f"there is no column {name!r}",
            where=f"{path}, record {number}",
            hint=f"name one of those that are there: {', '.join(row) or 'none'}",
        )
    return row[name]


def row_id(row: dict[str, Any], name: str, *, path: Path, number: int) -> str:
    """The id of a row, or "<file name>:<row number>" where it has none."""
    value = row.get(name)
    return f"{path.name}:{number}" if value is None else str(value)


def nothing_in(paths: tuple[str, ...]) -> DataError:
    """The error of a corpus that ended without a single record."""
    return DataError(
        "there is no record in any of the files",
        where=", ".join(paths) or "an empty list of paths",
        hint="point the corpus at files that hold text",
    )


def _is_hidden(relative: Path) -> bool:
    return relative.name.endswith(PARTIAL) or any(part.startswith(".") for part in relative.parts)


def _whole(path: Path, name: str) -> Document:
    """A plain text file as one document."""
    number, chunks = 0, []
    for number, line, _ in _lines(path):
        chunks.append(_decode(line, path, number, "line"))
    return Document("".join(chunks), name, name)


def _rows(path: Path, after: int = 0) -> Iterator[tuple[int, dict[str, Any], float]]:
    """The same from the record `after` on, without parsing those before it, and how much of the file is read then."""
    return _parquet_rows(path, after) if path.suffix == ".parquet" else _json_rows(path, after)


def _json_rows(path: Path, after: int) -> Iterator[tuple[int, dict[str, Any], float]]:
    for number, line, share in _lines(path):
        if number <= after:
            continue
        text = _decode(line, path, number, "record")
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(
                f"this is not JSON ({error}): {text.strip()[:60]!r}",
                where=f"{path}, record {number}",
                hint="write one JSON object a line; an unfinished last line means an interrupted download",
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"{text.strip()[:60]!r} is not a JSON object",
                where=f"{path}, record {number}",
                hint='write each line as {"text": ...}',
            )
        yield number, row, share


def _parquet_rows(path: Path, after: int) -> Iterator[tuple[int, dict[str, Any], float]]:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            about = file.metadata
            for group in range(about.num_row_groups):
                if number + about.row_group(group).num_rows <= after:
                    number += about.row_group(group).num_rows
                    continue
                for batch in file.iter_batches(batch_size=1024, row_groups=[group]):
                    for number, row in enumerate(batch.to_pylist(), number + 1):  # noqa: B020
                        if number > after:
                            yield number, row, number / about.num_rows
    except (arrow.ArrowInvalid, OSError) as error:
        raise _damaged(path, number + 1, error) from error


def _lines(path: Path) -> Iterator[tuple[int, bytes, float]]:
    """Numbered lines from 1, without a byte order mark, and how much of the file is read after each.

    Compression is undone as they come.
    """
    number = 0
    try:
        with open(path, "rb") as raw, _plain(raw, path.suffix) as file:
            size = path.stat().st_size or 1
            for number, line in enumerate(file, 1):
                yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, raw.tell() / size
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise _damaged(path, number + 1, error) from error


def _plain(raw: io.BufferedReader, suffix: str) -> Any:
    """A file without the compression that its suffix tells of."""
    match suffix:
        case ".gz":
            return io.BufferedReader(gzip.GzipFile(fileobj=raw))  # type: ignore[arg-type]
        case ".bz2":
            return io.BufferedReader(bz2.BZ2File(raw))
        case ".xz":
            return io.BufferedReader(lzma.LZMAFile(raw))
        case ".zst":
            import pyarrow as arrow

            return io.BufferedReader(arrow.input_stream(raw, compression="zstd"))
        case _:
            return raw


def _decode(line: bytes, path: Path, number: int, unit: str) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"byte {line[error.start : error.start + 1]!r} at place {error.start} is not UTF-8",
            where=f"{path}, {unit} {number}",
            hint="convert the file to UTF-8, for instance with iconv",
        ) from error


def _damaged(path: Path, number: int, error: Exception) -> DataError:
    return DataError(
        f"the file cannot be read any further: {error}",
        where=f"{path}, record {number}",
        hint="it is probably cut short or damaged: fetch or write it again",
    )
