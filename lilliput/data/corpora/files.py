"""The corpus of local files: rows of several formats and plain text, plain or compressed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, ClassVar

from lilliput.base.spec import LATER
from lilliput.data.documents import Document, Null, check_length, check_null, documents_of, null_text
from lilliput.data.readers.formats import holds_rows
from lilliput.data.readers.lines import read_text
from lilliput.data.readers.paths import Found, found_files, nothing_in, readable_files
from lilliput.data.readers.row_files import rows
from lilliput.data.readers.rows import Record


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
    """A row whose text is null: an error (`refuse`), or dropped and counted; an empty value of a `.csv` is null."""
    license: str | None = field(default=None, metadata=LATER)
    """Under which the texts come, by its hub name; None: not named, as cards then say."""
    columns: tuple[str, ...] = field(default=(), metadata=LATER)
    """Other columns that filters look at (`Metadata`)."""
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
        """The same, and reasons for what is dropped, with marks: the file's index, the record's number, and how much of
        the file is read."""
        first, number, _ = after or (0, 0, 0.0)
        empty = after is None
        for index, found in enumerate(readable_files(self.paths)):
            if index < first:
                continue
            for item, record, share in self._of_file(found, number if index == first else 0):
                empty = empty and found.is_about
                taken = [(item, [index, record, share])]
                del item  # else a long text is kept here while whoever takes it may already have cut it into others
                yield taken.pop()
        if empty:
            raise nothing_in(self.paths)

    def fraction_read(self) -> Callable[[list[Any]], float]:
        """Return the progress at a mark, by the bytes of the files."""
        sizes = [found.path.stat().st_size for found in found_files(self.paths)]
        before = [0, *accumulate(sizes)]
        return lambda mark: (before[mark[0]] + mark[2] * sizes[mark[0]]) / max(1, before[-1])

    def _of_file(self, found: Found, after: int) -> Iterator[tuple[Document | str, int, float]]:
        if found.is_about or not holds_rows(found.path):
            if after == 0:
                yield self._as_one_document(found), 1, 1.0
            return
        columns = [self.text, self.id, *self.columns] + ([] if self.group is None else [self.group])
        for record in rows(found.path, columns, after):
            yield self._item(record), record.number, record.share

    def _as_one_document(self, found: Found) -> Document | str:
        if found.is_about:
            return f"{found.path.name} beside rows"
        return Document(read_text(found.path), found.name, found.name)

    def _item(self, record: Record) -> Document | str:
        if record.column(self.text) is None:
            return null_text(self.null, self.text, str(record))
        text = record.text(self.text)
        check_length(record, text)
        name = record.id(self.id)
        is_alone = self.group is None or record.column(self.group) in (None, "")
        metadata = {column: record.column(column) for column in self.columns}
        return Document(text, name, name if is_alone else record.name(str(self.group)), metadata)
