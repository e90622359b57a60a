"""Rows of Parquet files. A few bytes of one can grow to a page that fills a memory, so its size is asked first."""

from collections.abc import Collection, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

from lilliput.base.errors import DataError, LilliputError
from lilliput.base.limits import limit, raising
from lilliput.data.readers.lines import damaged
from lilliput.data.readers.rows import Record
from lilliput.data.readers.thrift import Reader

EXPANSION = 1_000
"""Times its size that a page may grow to where that is more than a line; text grows to 3 times its size, or 10."""
_ROWS = 64
"""At a time; more of them are not read any faster."""
_BUFFER = 1 << 20
_DICTIONARY, _PREFIXES = 2, 7
"""The kind of a page that has each value once, and the encoding of one that has what values begin with once."""


def table_rows(path: Path, columns: Collection[str], after: int) -> Iterator[Record]:
    """The rows of a Parquet file after the first so many.

    Args:
        path: the file.
        columns: that are read, as far as they are there.
        after: as many rows are passed over.

    Raises:
        DataError: the file is damaged, or what it holds is larger than a line may be.
    """
    import pyarrow.parquet as parquet

    number, most = 0, limit("line_bytes")
    try:
        with open(path, "rb") as raw, parquet.ParquetFile(path, buffer_size=_BUFFER) as file:
            names, groups = file.schema_arrow.names, _groups(raw)
            wanted = [name for name in dict.fromkeys(columns) if name in names]
            for name in wanted:
                if names.count(name) > 1:
                    raise DataError(
                        f"the column {name!r} occurs more than once", where=str(path), hint="rename all but one"
                    )
            total = sum(group.rows for group in groups)
            for index, group in enumerate(groups):
                if number + group.rows <= after:
                    number += group.rows
                    continue
                size = _rows_at_once(raw, group, wanted, f"{path}, record {number + 1} and on")
                for batch in file.iter_batches(batch_size=size, row_groups=[index], columns=wanted):
                    for row in batch.to_pylist() if batch.nbytes <= most else _one_by_one(batch, path, number + 1):
                        number += 1
                        if number > after:
                            share = min(1.0, number / total)
                            yield Record(path=path, number=number, values=row, columns=names, share=share)
    except LilliputError:
        raise
    except Exception as error:  # besides Arrow's own errors those of values that Python has no room for
        raise damaged(f"{path}, record {number + 1}", error) from error


class _Chunk(NamedTuple):
    """One column of a group of rows."""

    column: str
    values: int
    """Number of values; in lists there are more than rows."""
    start: int
    """Offset of its first page in the file."""
    length: int


class _Group(NamedTuple):
    """Rows that are stored together."""

    rows: int
    chunks: list[_Chunk]


def _groups(raw: BufferedReader) -> list[_Group]:
    """The groups of rows of a file, as its footer has them."""
    end = raw.seek(-8, 2)
    length = int.from_bytes(raw.read(4), "little")
    raw.seek(end - length)
    return [
        _Group(group[3], [_chunk(chunk[3]) for chunk in group[1]]) for group in Reader(raw.read(length)).struct()[4]
    ]


def _chunk(about: dict[int, Any]) -> _Chunk:
    start = min(about[9], about.get(11) or about[9])
    return _Chunk(about[3][0].decode(), about[5], start, about[7])


def _rows_at_once(raw: BufferedReader, group: _Group, wanted: list[str], where: str) -> int:
    """Return how many rows of a group fit into the bytes of a line.

    Raises:
        DataError: the rows are too long on average, or pages grow out of so little that they are no text.
    """
    most, longest = limit("line_bytes"), 1
    for chunk in group.chunks:
        if chunk.column not in wanted:
            continue
        size = max(0, chunk.values - group.rows)  # in lists even values of no bytes count
        for page in _pages(raw, chunk):
            size += page.size
            longest = max(longest, page.size if page.repeats else 0)
            if page.size > max(most, EXPANSION * page.length):
                raise _too_long(f"{page.length:,} bytes of column {chunk.column!r} grow to {page.size:,}", where)
        if size > most * group.rows:
            raise _too_long(f"the rows of column {chunk.column!r} are longer than {most:,} bytes", where)
        longest = max(longest, size // group.rows)
    return max(1, min(_ROWS, most // longest))


class _Page(NamedTuple):
    """A page of a column."""

    size: int
    """Bytes that it grows to."""
    length: int
    """Bytes in the file."""
    repeats: bool
    """True if one byte of it can be part of many values."""


def _pages(raw: BufferedReader, chunk: _Chunk) -> Iterator[_Page]:
    offset, end = chunk.start, chunk.start + chunk.length
    while offset < end:
        raw.seek(offset)
        header = Reader(raw.peek(1))
        try:
            about = header.struct()
        except IndexError:  # it ends beyond what is buffered
            header = Reader(raw.read(_BUFFER))
            about = header.struct()
        if about[2] < 0 or about[3] < 0:
            raise ValueError("a page of less than no bytes")
        encoding = about.get(5, {}).get(2), about.get(8, {}).get(4)
        yield _Page(about[2], about[3], about[1] == _DICTIONARY or _PREFIXES in encoding)
        offset += header.offset + about[3]


def _one_by_one(batch: Any, path: Path, first: int) -> Iterator[dict[str, Any]]:
    """The rows of a batch, none of them longer than a line may be."""
    most = limit("line_bytes")
    for index in range(batch.num_rows):
        row = batch.slice(index, 1)
        if row.nbytes > most:
            raise _too_long(f"the row is longer than {most:,} bytes", f"{path}, record {first + index}")
        yield row.to_pylist()[0]


def _too_long(what: str, where: str) -> DataError:
    return DataError(what, where=where, hint=f"leave such rows out; {raising('line_bytes')}")
