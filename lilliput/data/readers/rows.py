"""Rows, each with its file and number, so that what is wrong with one can be found; those of JSON Lines."""

import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from reprlib import Repr
from typing import Any

from lilliput.base.errors import DataError
from lilliput.data.readers.lines import Opener, decoded, lines

_SHOWN = Repr()
_SHOWN.maxstring = _SHOWN.maxother = 60
_SHOWN.maxlevel = 3
_NAMES = 40
"""Columns that an error lists."""
ESCAPED = 12
"""Bytes that a byte of a text and of its name take in JSON, at most, together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A row of a file."""

    path: Path
    number: int
    """From 1; blank lines are counted."""
    values: dict[str, Any]
    """By column, of the columns that were asked for at least."""
    columns: Collection[str]
    """Existing columns."""
    share: float
    """Share of the file that is read, from 0 to 1."""

    def __str__(self) -> str:
        """The place of the row, for errors."""
        return f"{self.path}, record {self.number}"

    def column(self, name: str) -> Any:
        """The value under a name.

        Raises:
            DataError: there is no such column.
        """
        if name not in self.values:
            raise DataError(
                f"there is no column {name!r:.80}",
                where=str(self),
                hint=f"name an existing one: {listed(self.columns)}",
            )
        return self.values[name]

    def text(self, name: str) -> str:
        """The text under a name.

        Raises:
            DataError: there is no such column, or it holds something else.
        """
        value = self.column(name)
        if not isinstance(value, str):
            raise DataError(
                f"column {name!r:.80} is {shown(value)}, not text",
                where=str(self),
                hint=f"name a text column, as in --source NAME:COLUMN=PATH; existing columns: {listed(self.columns)}",
            )
        return value

    def name(self, column: str) -> str:
        """The value of a column as a name.

        Raises:
            DataError: there is no such column, or its value is too deep to be one.
        """
        value = self.column(column)
        try:
            return str(value)
        except RecursionError as error:
            raise DataError(
                f"column {column!r:.80} is {shown(value)}, which cannot name anything",
                where=str(self),
                hint=f"name another column (this row has: {listed(self.columns)})",
            ) from error

    def id(self, column: str) -> str:
        """The value of the column that names the row, or "<file name>:<row number>" where it has none."""
        return f"{self.path.name}:{self.number}" if self.values.get(column) in (None, "") else self.name(column)


def line_rows(path: Path, after: int = 0, room: int = 1, opener: Opener | None = None) -> Iterator[Record]:
    """The objects of a file that has one a line, after the first so many lines, which are not parsed.

    Args:
        path: the file.
        after: as many lines are passed over; blank lines are counted, and no rows.
        room: a line may be this many times as long as the limit `line_bytes`.
        opener: of a file that is elsewhere, see `lilliput.data.readers.lines.lines`.

    Raises:
        DataError: the file is damaged, or a line is not a JSON object, not UTF-8 or too long; it is named.
    """
    for number, line, share in lines(path, room, opener=opener):
        if number <= after:
            continue
        where = f"{path}, record {number}"
        text = decoded(line, path, f"record {number}")
        if not text.strip():
            continue
        try:
            row = OBJECTS.decode(text)
        except (ValueError, RecursionError) as error:  # more digits than Python reads in a number are a ValueError too
            raise DataError(
                f"this is not JSON ({error}): {text.strip()[:60]!r}",
                where=where,
                hint="write one JSON object per line; an unfinished last line means an interrupted download",
            ) from error
        yield Record(path=path, number=number, values=an_object(row, text, where), columns=row, share=share)


def read_back(path: Path) -> Iterator[Record]:
    """The rows of a JSON Lines file that we wrote.

    Raises:
        DataError: as for `line_rows`.
    """
    return line_rows(path, room=ESCAPED)


def shown(value: Any) -> str:
    """A value of any size and depth in a few words, for errors."""
    return f"{_SHOWN.repr(value):.80}"


def listed(names: Collection[str]) -> str:
    """Names of columns in a row, for errors."""
    first = (name if name.isprintable() and len(name) <= 80 else shown(name) for name in islice(names, _NAMES))
    more = f" and {len(names) - _NAMES:,} others" if len(names) > _NAMES else ""
    return (", ".join(first) or "none") + more


def an_object(value: Any, text: str, where: str) -> dict[str, Any]:
    """The value of a JSON text that is a row.

    Raises:
        DataError: it is no object.
    """
    if isinstance(value, dict):
        return value
    raise DataError(
        f"{text.strip()[:60]!r} is not a JSON object",
        where=where,
        hint='write each row as {"text": ...}, one per line; name a file that is one array of them .json',
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys differ: of two values under one key, none is the right one to drop."""
    whole = dict(pairs)
    if len(whole) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"the key {counts.most_common(1)[0][0]!r:.80} is there twice")
    return whole


OBJECTS = json.JSONDecoder(object_pairs_hook=_object)
"""Reads JSON as rows have it."""
