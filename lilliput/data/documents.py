"""Documents, and the corpus of local files: rows of several formats and plain text, plain or compressed."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from operator import itemgetter
from typing import Any, ClassVar, Literal, Protocol, TypeGuard, get_args

from lilliput.base.errors import DataError, RecipeError
from lilliput.base.limits import limit, raising
from lilliput.data.readers.formats import holds_rows
from lilliput.data.readers.lines import whole
from lilliput.data.readers.paths import Found, found_files, nothing_in, readable_files
from lilliput.data.readers.row_files import rows
from lilliput.data.readers.rows import Record

Null = Literal["refuse", "drop"]
"""What becomes of a row whose text is null."""
NULL_TEXT = "null text"
"""The reason why such a row is dropped."""


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
class TextFiles:
    """Local files of rows, a document each, and of plain text in UTF-8, which are one document each.

    Rows are in `.jsonl` or `.ndjson` (an object a line), `.json` (one array of objects, or an object a line), `.csv`,
    `.tsv` (with a header) and `.parquet`. All but Parquet may end in `.gz`, `.bz2`, `.xz` or `.zst`. Rows are
    streamed: no file of rows is held in memory. Formats without plain text (`.pdf`, `.zip`, `.png`, ...) are refused.

    In a folder a README, a LICENSE and the JSON that the library `datasets` writes are no texts where they lie beside
    files of rows, or above them: they tell of the rows. Each is dropped as "README.md beside rows", and so counted.
    """

    paths: tuple[str, ...]
    """Files, folders (every file below, sorted, hidden ones aside) and glob patterns (sorted), in this order."""
    text: str = "text"
    """Column that holds the text."""
    id: str = "id"
    """Column that names the row; a row without it is "<file name>:<row number>", a plain file its path below the folder
    or the pattern that it was found by: wherever that lies, the same documents are held out."""
    group: str | None = None
    """Column of the held-out group; without one, or where it is null or empty, a document is a group of its own."""
    null: Null = "refuse"
    """Whether a row whose text is null is an error, or dropped and counted; an empty value of a `.csv` is null."""
    is_seekable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_null("TextFiles", self.null)

    def identity(self) -> list[Any]:
        """Size and time of change of every file."""
        found = (file.path for file in found_files(self.paths))
        return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in found]

    def documents(self) -> Iterator[Document]:
        """Yield the documents in the order of the files and of their rows.

        Raises:
            DataError: a file is missing, damaged, not UTF-8, of a format that is not read or not what its name says, or
                without the text column; a text is null and may not be; or none of the files has a row.
        """
        return documents_of(self.iterate_from())

    def iterate_from(self, after: list[Any] | None = None) -> Iterator[tuple[Document | str, list[Any]]]:
        """The same, and reasons for what is dropped, with marks: the file's place, the record's number, and how much of
        the file is read."""
        first, number, _ = after or (0, 0, 0.0)
        empty = after is None
        for place, found in enumerate(readable_files(self.paths)):
            if place < first:
                continue
            for item, record, share in self._of_file(found, number if place == first else 0):
                empty = empty and found.is_about
                taken = [(item, [place, record, share])]
                del item  # else a long text is kept here while whoever takes it may already have cut it into others
                yield taken.pop()
        if empty:
            raise nothing_in(self.paths)

    def fraction_read(self) -> Callable[[list[Any]], float]:
        """What tells how far a mark is, by the bytes of the files."""
        sizes = [found.path.stat().st_size for found in found_files(self.paths)]
        before = [0, *accumulate(sizes)]
        return lambda mark: (before[mark[0]] + mark[2] * sizes[mark[0]]) / max(1, before[-1])

    def _of_file(self, found: Found, after: int) -> Iterator[tuple[Document | str, int, float]]:
        if found.is_about or not holds_rows(found.path):
            if after == 0:
                yield self._whole(found), 1, 1.0
            return
        columns = [self.text, self.id] if self.group is None else [self.text, self.id, self.group]
        for record in rows(found.path, columns, after):
            yield self._item(record), record.number, record.share

    def _whole(self, found: Found) -> Document | str:
        if found.is_about:
            return f"{found.path.name} beside rows"
        return Document(whole(found.path), found.name, found.name)

    def _item(self, record: Record) -> Document | str:
        if record.column(self.text) is None:
            return null_text(self.null, self.text, str(record))
        text = record.text(self.text)
        check_length(record, text)
        name = record.id(self.id)
        if self.group is None or record.column(self.group) in (None, ""):
            return Document(text, name, name)
        return Document(text, name, record.name(self.group))


def null_text(null: Null, column: str, where: str) -> str:
    """The reason for dropping a row whose text is null.

    Raises:
        DataError: it is to be refused.
    """
    if null == "drop":
        return NULL_TEXT
    raise DataError(
        f"column {column!r:.80} is null, not text",
        where=where,
        hint='drop such rows, which are counted then: null="drop" of the corpus, or --set corpora.NAME.null=drop',
    )


def check_null(spec: str, null: str) -> None:
    """Refuse a rule about null texts that there is not.

    Raises:
        RecipeError: it is none.
    """
    if null not in get_args(Null):
        raise RecipeError(f"null is {null!r:.80}", where=f"{spec}(null=...)", hint='give "refuse" or "drop"')


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
            step.update(len(data).to_bytes(8, "little"))
            step.update(data)
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


def documents_of(marked: Iterable[tuple[Document | str, Any]]) -> Iterator[Document]:
    """The documents among items with marks; unlike a generator's variable, nothing here keeps one any longer."""
    return filter(_is_document, map(itemgetter(0), marked))


def _is_document(item: Document | str) -> TypeGuard[Document]:
    return isinstance(item, Document)


def corpus_hash(documents: Iterable[Document]) -> str:
    """Hex SHA-256 over ids and texts in order."""
    texts = TextHash()
    for document in documents:
        texts.add(document.id, document.text)
    return texts.hex()
