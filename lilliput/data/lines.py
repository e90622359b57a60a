"""Files as lines of bytes, or whole as text; compression is undone as they come, and no more of it than a limit."""

import bz2
import gzip
import io
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lilliput.base.errors import DataError, LilliputError
from lilliput.base.limits import limit, raising

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
"""Suffixes of the compressions that are undone while reading."""
XZ_MEMORY = 512 << 20
"""Bytes that undoing xz may take: `xz -9` asks for 65 MiB, the header of a file for anything up to 4 GiB."""
_PIECE = 1 << 20


def lines(path: Path, room: int = 1) -> Iterator[tuple[int, bytes, float]]:
    """Numbered lines from 1, without a byte order mark, and how much of the file is read after each.

    Args:
        path: the file.
        room: a line may be this many times as long as the limit `line_bytes`.

    Raises:
        DataError: the file is damaged, or a line is longer.
    """
    number, most = 0, room * limit("line_bytes")
    try:
        with _plain(path) as (file, raw):
            size = path.stat().st_size or 1
            while line := file.readline(most + 1):
                number += 1
                if len(line) > most:
                    raise DataError(
                        f"the line is longer than {most:,} bytes",
                        where=f"{path}, record {number}",
                        hint=f"end every record with a line break; {raising('line_bytes')}",
                    )
                yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, raw.tell() / size
    except LilliputError:
        raise
    except Exception as error:  # every compression has errors of its own
        raise damaged(path, number + 1, error) from error


def whole(path: Path) -> str:
    """The text of a file, without a byte order mark.

    Raises:
        DataError: the file is damaged, not UTF-8, or longer than the limit `document_bytes`.
    """
    most, data = limit("document_bytes"), bytearray()
    try:
        with _plain(path) as (file, _):
            while len(data) <= most and (piece := file.read(_PIECE)):
                data += piece
    except Exception as error:
        raise damaged(path, data.count(b"\n") + 1, error) from error
    if len(data) > most:
        raise DataError(
            f"the file is one document of more than {most:,} bytes",
            where=str(path),
            hint=f'write a document a line, {{"text": "..."}}, into a .jsonl file; {raising("document_bytes")}',
        )
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        first, number = data.rfind(b"\n", 0, error.start) + 1, data.count(b"\n", 0, error.start) + 1
        raise _not_text(data[first:], error.start - first, f"{path}, line {number}") from error


def decoded(line: bytes, path: Path, number: int) -> str:
    """The text of a line of a file.

    Raises:
        DataError: it is not UTF-8.
    """
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise _not_text(line, error.start, f"{path}, record {number}") from error


def damaged(path: Path, number: int, error: Exception) -> DataError:
    """The error of a file that cannot be read beyond a record."""
    return DataError(
        f"the file cannot be read any further: {error}",
        where=f"{path}, record {number}",
        hint="it is probably cut short or damaged: fetch or write it again",
    )


@contextmanager
def _plain(path: Path) -> Iterator[tuple[Any, io.BufferedReader]]:
    """A file without the compression that its suffix tells of, and as it is."""
    with open(path, "rb") as raw:
        match path.suffix:
            case ".gz":
                file = io.BufferedReader(gzip.GzipFile(fileobj=raw))  # type: ignore[arg-type]
            case ".bz2":
                file = io.BufferedReader(bz2.BZ2File(raw))
            case ".xz":
                file = io.BufferedReader(_Xz(raw))
            case ".zst":
                import pyarrow as arrow

                file = io.BufferedReader(arrow.input_stream(raw, compression="zstd"))
            case _:
                file = raw
        with file:
            yield file, raw


class _Xz(io.RawIOBase):
    """What the streams of an `.xz` file hold, one after another; the library's own reader takes any memory."""

    def __init__(self, raw: io.BufferedReader):
        self._raw, self._stream = raw, _stream()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            packed = b""
            if self._stream.eof:
                packed = self._stream.unused_data
                while not (packed := packed.lstrip(b"\0")):  # zeros may follow a stream
                    if not (packed := self._read()):
                        return 0
                self._stream = _stream()
            elif self._stream.needs_input and not (packed := self._read()):
                raise EOFError("it ends before its last stream does")
            if data := self._stream.decompress(packed, len(buffer)):
                buffer[: len(data)] = data
                return len(data)

    def _read(self) -> bytes:
        return self._raw.read(io.DEFAULT_BUFFER_SIZE)


def _stream() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(memlimit=XZ_MEMORY)


def _not_text(line: bytes | bytearray, place: int, where: str) -> DataError:
    return DataError(
        f"byte {bytes(line[place : place + 1])!r} at place {place} is not UTF-8",
        where=where,
        hint="convert the file to UTF-8, for instance with iconv",
    )
