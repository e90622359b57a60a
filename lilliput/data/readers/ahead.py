"""A file that is read in a thread, somewhat ahead: undoing its compression runs beside whoever reads it."""

import io
import threading
from collections.abc import Callable
from queue import Full, Queue
from typing import Any, cast

PIECE = 1 << 19
"""Bytes that are read at a time: the thread needs the interpreter between two of them, and may wait for it."""
_PIECES = 3
_MOMENT = 0.05
"""Seconds between two looks at whether anybody still reads."""
_PATIENCE = 0.5
"""Seconds that the thread gets to end a read. One that waits for a network is left behind."""


class ReadAhead(io.RawIOBase):
    """Reads another file, in pieces that `read1` gives. Its errors come after what was read before them.

    Args:
        file: nothing else may read it; it is closed by whoever opened it, after this one.
        tell: returns a position that belongs to what was read of the file, such as that of the compressed file.
    """

    def __init__(self, file: io.BufferedIOBase, tell: Callable[[], int]):
        self._file, self._tell, self._rest = file, tell, memoryview(b"")
        self._pieces: Queue[tuple[bytes | Exception, int]] = Queue(_PIECES)
        self._is_left = threading.Event()
        self._last: bytes | Exception | None = None
        self._position = tell()
        self._thread = threading.Thread(target=self._read_all, daemon=True)
        self._thread.start()

    def readable(self) -> bool:
        """Return True."""
        return True

    def position(self) -> int:
        """Return what `tell` said when the last piece that was given had been read."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read what is there, or wait until something is."""
        if not self._rest and self._last is None:
            piece, self._position = self._pieces.get()
            if piece and isinstance(piece, bytes):
                self._rest = memoryview(piece)
            else:
                self._last = piece
        if isinstance(self._last, Exception):
            raise self._last
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count

    def close(self) -> None:
        """Stop reading."""
        self._is_left.set()
        self._thread.join(_PATIENCE)
        super().close()

    def _read_all(self) -> None:
        piece, position = cast(bytes | Exception, b"?"), 0
        while piece and isinstance(piece, bytes) and not self._is_left.is_set():
            try:
                piece, position = self._file.read1(PIECE), self._tell()
            except Exception as error:
                piece = error
            while not self._is_left.is_set():
                try:
                    self._pieces.put((piece, position), timeout=_MOMENT)
                    break
                except Full:
                    continue
