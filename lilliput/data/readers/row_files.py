"""Rows of files in any format that has them."""

from collections.abc import Collection, Iterator
from pathlib import Path

from lilliput.data.readers.csv_rows import separated_rows
from lilliput.data.readers.formats import JSON, PARQUET, SEPARATORS, suffix_of
from lilliput.data.readers.json_array import json_rows
from lilliput.data.readers.parquet import table_rows
from lilliput.data.readers.rows import Record, line_rows


def rows(path: Path, columns: Collection[str], after: int = 0) -> Iterator[Record]:
    """The rows of a file after the first so many, which are not parsed where their ends can be found without.

    Args:
        path: the file.
        columns: those that are needed, as far as they are there; no others are read of a Parquet file.
        after: as many records are passed over.

    Raises:
        DataError: the file is damaged, not UTF-8 or not what its name says, or a row is longer than a line may be; the
            record is named.
    """
    suffix = suffix_of(path)
    if suffix == PARQUET:
        return table_rows(path, columns, after)
    if suffix in SEPARATORS:
        return separated_rows(path, after)
    return json_rows(path, after) if suffix == JSON else line_rows(path, after)
