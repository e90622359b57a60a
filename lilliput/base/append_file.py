"""A file that grows for hours: how much of it is on the disk, with which hash, and how to go on from there."""

import hashlib
import os
from pathlib import Path

from lilliput.base.files import name_file

_PIECE = 1 << 20
"""Bytes that are written, or read, at a time."""


class AppendFile:
    """A new file that is hashed as it is written; what it is worth after a kill is for a record beside it to say.

    Args:
        path: the file, replaced if it is there.
    """

    def __init__(self, path: Path):
        self._begin(path, "wb")

    @classmethod
    def reopened(cls, path: Path, length: int, sha256: str) -> "AppendFile | None":
        """The file as it was when its first `length` bytes had that hash; None if they have not any more.

        What came after them is cut off.
        """
        file = cls.__new__(cls)
        try:
            file._begin(path, "r+b")
        except FileNotFoundError:
            return None
        while file.length < length and (piece := file._file.read(min(_PIECE, length - file.length))):
            file._hash.update(piece)
            file.length += len(piece)
        if file.length < length or file._hash.hexdigest() != sha256:
            file.close()
            return None
        file._file.seek(length)
        file._file.truncate()
        return file

    def write(self, data: bytes | memoryview) -> None:
        """Append."""
        try:
            self._file.write(data)
        except OSError as error:
            name_file(error, self.path)
            raise
        self._hash.update(data)
        self.length += len(data)

    def sync(self) -> str:
        """Bring what is written to the disk; the hex SHA-256 of it."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            name_file(error, self.path)
            raise
        return self._hash.hexdigest()

    def close(self) -> None:
        """Let go of the file, as it is."""
        try:
            self._file.close()
        except OSError as error:  # a full disk: what could not be written is not counted on
            name_file(error, self.path)
            raise

    def _begin(self, path: Path, mode: str) -> None:
        self.path, self.length = path, 0
        self._file = open(path, mode, buffering=_PIECE)  # noqa: SIM115, `close` closes it
        self._hash = hashlib.sha256()
