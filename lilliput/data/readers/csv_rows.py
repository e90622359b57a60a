"""Rows of `.csv` and `.tsv` files, whose first row has the names of the columns; all values are texts."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lilliput.base.errors import DataError
from lilliput.base.limits import limit, raising
from lilliput.data.readers.formats import SEPARATORS, suffix_of
from lilliput.data.readers.lines import decoded, lines, not_text
from lilliput.data.readers.rows import Record, listed

_HOW = "Python's csv.writer and the to_csv of pandas write such files"


def separated_rows(path: Path, after: int = 0) -> Iterator[Record]:
    """The rows after the first so many; a value of no characters is null, for these files cannot tell the two apart.

    Args:
        path: the file.
        after: as many rows are passed over; the header and blank lines are none.

    Raises:
        DataError: the file is damaged, not UTF-8 or has no names for its columns, or a row is longer than a line may
            be, not quoted as it should be, or has more or fewer values than there are columns.
    """
    text = _Text(path)
    csv.field_size_limit(max(csv.field_size_limit(), limit("line_bytes")))  # the library's own: of all its readers
    reader = csv.reader(text, delimiter=SEPARATORS[suffix_of(path)], strict=True)
    names = _header(text.next_of(reader), path)
    while names and (values := text.next_of(reader)) is not None:
        if len(values) != len(names):
            raise DataError(
                f"there are {len(values)} values for {len(names)} columns ({listed(names)})",
                where=str(text),
                hint=f"give each row as many values as the first, and put those that hold a separator, a quote or a "
                f"line break in quotes; {_HOW}",
            )
        if text.number > after:
            row = {name: value or None for name, value in zip(names, values, strict=True)}
            yield Record(path=path, number=text.number, values=row, columns=names, share=text.share)


class _Text:
    """The lines of a file for a reader that makes rows of them."""

    def __init__(self, path: Path):
        self.path, self.share = path, 0.0
        self.number = -1
        """Number of the last row; the header is row 0."""
        self._lines, self._most, self._size, self._line = lines(path, unit="line"), limit("line_bytes"), 0, 0

    def __iter__(self) -> Iterator[str]:
        for number, line, share in self._lines:
            self._line, self.share = number, share
            self._size += len(line)
            if self._size > self._most:
                raise DataError(
                    f"the row is longer than {self._most:,} bytes",
                    where=str(self),
                    hint=f"look for a quote in it that is not closed; {raising('line_bytes')}",
                )
            if 0 in line:
                raise not_text(line, line.find(0), self.path, f"line {self._line}")
            yield decoded(line, self.path, f"line {self._line}")

    def __str__(self) -> str:
        """Name the place of the current row, for errors."""
        return f"{self.path}, record {self.number} at line {self._line}"

    def next_of(self, reader: Iterator[list[str]]) -> list[str] | None:
        """The next row that is not blank; None at the end."""
        self.number += 1
        try:
            for values in reader:
                self._size = 0
                if values:
                    return values
        except csv.Error as error:
            raise DataError(
                f"the row is quoted wrongly ({error})",
                where=str(self),
                hint=f'put values that hold a quote in quotes, and write each quote in them twice (""); {_HOW}',
            ) from error
        return None


def _header(names: list[str] | None, path: Path) -> list[str]:
    names = names or []
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise DataError(
            f"the column {twice!r:.80} occurs more than once", where=f"{path}, line 1", hint="rename all but one"
        )
    return names
