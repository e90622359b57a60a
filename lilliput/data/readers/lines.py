"""Files as lines of bytes, or whole as text; compression is undone as they come, and no more of it than a limit."""

import bz2
import gzip
import io
import lzma
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lilliput.base.errors import DataError, LilliputError
from lilliput.base.limits import limit, raising
from lilliput.data.readers.ahead import PIECE, ReadAhead
from lilliput.data.readers.formats import compression_of

Opener = Callable[[Path], Any]
"""Opens a file that is not on the disk: binary, to be closed by whoever reads it."""

XZ_MEMORY = 512 << 20
"""Bytes that undoing xz may take: `xz -9` asks for 65 MiB, the header of a file for anything up to 4 GiB."""
_PACKED = 1 << 18
"""Bytes of an `.xz` file that are unpacked at a time, without the interpreter."""


def lines(
    path: Path, room: int = 1, unit: str = "record", opener: Opener | None = None
) -> Iterator[tuple[int, bytes, float]]:
    """Numbered lines from 1, without a byte order mark, and how much of the file is read after each.

    Args:
        path: the file.
        room: a line may be this many times as long as the limit `line_bytes`.
        unit: a line's name in errors.
        opener: of a file elsewhere, whose progress is not shown; None for one on the disk.

    Raises:
        DataError: the file is damaged, or a line is longer.
    """
    number, most = 0, room * limit("line_bytes")
    try:
        with open_decompressed(path, opener) as (file, position):
            size = float("inf") if opener else path.stat().st_size or 1
            while line := file.readline(most + 1):
                number += 1
                if len(line) > most:
                    raise DataError(
                        f"the line is longer than {most:,} bytes",
                        where=f"{path}, {unit} {number}",
                        hint=f"end every record with a line break; {raising('line_bytes')}",
                    )
                yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, position() / size
    except LilliputError:
        raise
    except Exception as error:  # every compression has errors of its own
        raise damaged(f"{path}, {unit} {number + 1}", error) from error


def read_text(path: Path) -> str:
    """The text of a file, without a byte order mark.

    Raises:
        DataError: the file is damaged, no text in UTF-8, or longer than the limit `document_bytes`.
    """
    most, data = limit("document_bytes"), bytearray()
    try:
        with open_decompressed(path) as (file, _):
            while len(data) <= most and (piece := file.read(PIECE)):
                data += piece
    except Exception as error:
        number = data.count(b"\n") + 1
        raise damaged(f"{path}, line {number}", error) from error
    if len(data) > most:
        raise DataError(
            f"the file is one document of more than {most:,} bytes",
            where=str(path),
            hint=f'write one document per line, {{"text": "..."}}, to a .jsonl file; {raising("document_bytes")}',
        )
    if (offset := data.find(0)) >= 0:
        number = data.count(b"\n", 0, offset) + 1
        raise not_text(data, offset, path, f"line {number}")
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        first, number = data.rfind(b"\n", 0, error.start) + 1, data.count(b"\n", 0, error.start) + 1
        raise not_text(data[first:], error.start - first, path, f"line {number}") from error


def decoded(line: bytes, path: Path, unit: str) -> str:
    """The text of a line of a file, which errors name as `unit`.

    Raises:
        DataError: it is not UTF-8.
    """
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise not_text(line, error.start, path, unit) from error


def damaged(where: str, error: Exception) -> DataError:
    """The error of a file that cannot be read beyond a place."""
    return DataError(
        f"the file cannot be read any further: {error}",
        where=where,
        hint="it is probably truncated or damaged: fetch or write it again",
    )


def not_text(data: bytes | bytearray, offset: int, path: Path, unit: str) -> DataError:
    """The error of a byte that is no UTF-8, or zero, as no text has it.

    Args:
        data: the line, or what of the file the byte is in.
        offset: of the byte.
        path: the file.
        unit: where in the file `data` begins, in words.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        hint = f"it is UTF-16: {_conversion(path, 'UTF-16')}"
    elif 0 in data[:2]:
        hint = f"where it is UTF-16: {_conversion(path, 'UTF-16LE' if data[0] else 'UTF-16BE')}"
    elif data[offset]:
        hint = f"where it is Latin-1: {_conversion(path, 'ISO-8859-1')}; `iconv -l` lists other encodings"
    else:
        hint = "leave the file out: it is no text, or damaged"
    byte = bytes(data[offset : offset + 1])
    return DataError(
        f"byte {byte!r} at offset {offset} is {'not UTF-8' if data[offset] else 'never part of a text'}",
        where=f"{path}, {unit}",
        hint=hint,
    )


def _conversion(path: Path, encoding: str) -> str:
    """The command that makes UTF-8 of a file."""
    first, name = unpacking(path)
    old, new = shlex.quote(str(name)), shlex.quote(str(name.with_name(f"utf8-{name.name}")))
    return f"{first}iconv -f {encoding} -t UTF-8 {old} > {new}, and read that instead"


def unpacking(path: Path) -> tuple[str, Path]:
    """Return how a hint about a file begins, and the name that a command in it can take: of the file without
    compression.
    """
    packed = compression_of(path)
    return (f"undo the compression ({packed}), then ", path.with_suffix("")) if packed else ("", path)


@contextmanager
def open_decompressed(path: Path, opener: Opener | None = None) -> Iterator[tuple[Any, Callable[[], int]]]:
    """A file without the compression that its suffix tells of, and as it is."""
    with opener(path) if opener else open(path, "rb") as raw:
        match compression_of(path):
            case ".gz":
                plain = io.BufferedReader(gzip.GzipFile(fileobj=raw))  # type: ignore[arg-type]
            case ".bz2":
                plain = io.BufferedReader(bz2.BZ2File(raw))
            case ".xz":
                plain = io.BufferedReader(_Xz(raw))
            case ".zst":
                import pyarrow as arrow

                plain = io.BufferedReader(arrow.input_stream(raw, compression="zstd"))
            case _:
                with raw:
                    yield raw, raw.tell
                return
        ahead = ReadAhead(plain, raw.tell)
        with plain, io.BufferedReader(ahead, PIECE) as file:
            yield file, ahead.position


class _Xz(io.RawIOBase):
    """Reader of the streams of an `.xz` file, one after another; the library's own reader takes any memory."""

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
        return self._raw.read(_PACKED)


def _stream() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(memlimit=XZ_MEMORY)
