"""Rows of `.json` files: the objects of one array, element by element, or one a line."""

import codecs
import glob
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lilliput.base.errors import DataError, LilliputError
from lilliput.base.limits import limit, raising
from lilliput.data.readers.lines import damaged, not_text, open_decompressed, unpacking
from lilliput.data.readers.rows import OBJECTS, Record, an_object, line_rows

_PIECE = 1 << 20
_LITERAL = 16
"""Characters before the end of what is read within which JSON may seem wrong and only be cut, as in `-Infin`."""


def json_rows(path: Path, after: int = 0) -> Iterator[Record]:
    """The objects of a `.json` file after the first so many.

    Raises:
        DataError: the file is damaged, not UTF-8, not JSON, or neither an array of objects nor an object a line; or
            one of them is longer than a line may be.
    """
    first = _first_line(path)
    if first.startswith(b"["):
        return _elements(path, after)
    if first.startswith(b"{") and _is_cut(first):
        raise _one_object(path)
    return line_rows(path, after)


def _first_line(path: Path) -> bytes:
    """The first line that is not blank; of an array its beginning, for it may be a file of one line."""
    start, most = b"", limit("line_bytes")
    try:
        with open_decompressed(path) as (file, _):
            while not (start := start.removeprefix(codecs.BOM_UTF8).lstrip()) and (piece := file.readline(_PIECE)):
                start = piece
            return start + file.readline(most) if start.startswith(b"{") and not start.endswith(b"\n") else start
    except Exception as error:  # every compression has errors of its own
        raise damaged(f"{path}, record 1", error) from error


def _is_cut(line: bytes) -> bool:
    """Return whether a line begins an object that ends in another; other faults are reported when it is read."""
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        return error.pos >= len(line.decode("utf-8", "replace").rstrip()) - 1
    except (ValueError, RecursionError):
        return False
    return False


def _one_object(path: Path) -> DataError:
    to_do, name = unpacking(path)
    old, new = shlex.quote(str(name)), shlex.quote(str(name.with_suffix(".jsonl")))
    return DataError(
        "the file is neither an array of objects nor one object per line",
        where=str(path),
        hint=f"if it is one row: {to_do}python -m json.tool --compact {old} {new}, and read that instead; "
        f'if it holds no rows, name the files that do with a pattern such as "{glob.escape(str(path.parent))}/*.jsonl"',
    )


def _elements(path: Path, after: int) -> Iterator[Record]:
    number = 0
    try:
        with open_decompressed(path) as (file, position):
            size, rest = path.stat().st_size or 1, _Rest(file, path)
            sign = rest.take()
            assert sign == "["
            while not (number == 0 and rest.sign() == "]"):
                row = rest.object(number + 1)
                number += 1
                if number > after:
                    yield Record(path=path, number=number, values=row, columns=row, share=position() / size)
                if rest.sign(number) == "]":
                    break
                if rest.sign(number) != ",":
                    raise rest.no_json("neither a comma nor the end of the array comes next", number)
                rest.take()
            rest.take()
            if rest.sign(number):
                raise rest.no_json("something follows the array", number)
    except LilliputError:
        raise
    except Exception as error:  # every compression has errors of its own
        raise damaged(f"{path}, record {number + 1}", error) from error


class _Rest:
    """The unread rest of a text; little more than one element of it is held."""

    def __init__(self, file: Any, path: Path):
        self._file, self._path, self._most = file, path, limit("line_bytes")
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._place, self._ended = "", 0, False

    def sign(self, number: int = 1) -> str:
        """The next character that is not blank, or nothing at the end; `number` is the record, for errors."""
        while True:
            blank = _BLANK.match(self._text, self._place)
            assert blank is not None
            self._place = blank.end()
            if self._place < len(self._text) or self._ended:
                return self._text[self._place : self._place + 1]
            self._more(_PIECE, number)

    def take(self) -> str:
        """The same, which is then read."""
        sign = self.sign()
        self._place += len(sign)
        return sign

    def object(self, number: int) -> dict[str, Any]:
        """The object that comes next.

        Raises:
            DataError: something else does, or it is too long.
        """
        self.sign(number)
        while True:
            try:
                value, end = OBJECTS.raw_decode(self._text, self._place)
                break
            except (ValueError, RecursionError) as error:
                held = len(self._text) - self._place
                if self._ended or not self._is_cut(error):
                    raise self.no_json(getattr(error, "msg", str(error)), number) from error
                if held > self._most:
                    raise self._too_long(number) from error
                self._more(min(max(_PIECE, held), self._most + 1), number)  # twice as much, so that few attempts fail
        text, self._place = self._text[self._place : end], end
        if 4 * len(text) > self._most and len(text.encode("utf-8", "surrogatepass")) > self._most:
            raise self._too_long(number)
        return an_object(value, text, f"{self._path}, record {number}")

    def no_json(self, why: str, number: int) -> DataError:
        return DataError(
            f"this is not JSON ({why}): {self._text[self._place : self._place + 60]!r}",
            where=f"{self._path}, record {number}",
            hint="write one array of objects; an unfinished last one means an interrupted download",
        )

    def _is_cut(self, error: Exception) -> bool:
        """Return whether the fault may only be that the text is not complete yet."""
        if not isinstance(error, json.JSONDecodeError):
            return False
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _LITERAL

    def _more(self, size: int, number: int) -> None:
        piece = self._file.read(size)
        self._ended = not piece
        try:
            text = self._decoder.decode(piece, self._ended)
        except UnicodeDecodeError as error:
            raise not_text(error.object, error.start, self._path, f"record {number}") from error
        self._text, self._place = self._text[self._place :] + text, 0

    def _too_long(self, number: int) -> DataError:
        return DataError(
            f"the element is longer than {self._most:,} bytes",
            where=f"{self._path}, record {number}",
            hint=f"leave it out; {raising('line_bytes')}",
        )


_BLANK = re.compile(r"[ \t\n\r]*")
