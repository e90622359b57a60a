"""The file of a teacher's replies: a row is on the disk before it counts, so that a kill loses none that was paid."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from lilliput.base.errors import DataError, reading
from lilliput.base.files import boundary, name_file, write_bytes
from lilliput.data.replies.reply import Reply, reply_of

REPLIES = "replies.jsonl"


class ReplyFile:
    """Replies in the order in which they came; a context manager that appends to them.

    What a kill left of a last row, or a disk of another, is taken out, so that its prompt is asked again.

    Args:
        path: the file, which need not be there.
    """

    def __init__(self, path: Path):
        self.path = path
        lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        whole = [line for line in lines if _key(line)]
        if len(whole) < len(lines) or (lines and path.stat().st_nlink > 1):  # a link to another run's is given up
            write_bytes(path, b"".join(whole))
        self.keys = {key for line in whole if (key := _key(line))}
        """Keys of the prompts that are answered."""

    def __enter__(self) -> "ReplyFile":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "ab", buffering=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, replies: Sequence[Reply]) -> None:
        """Bring replies to the disk; each counts from then on."""
        rows = "".join(reply.line() for reply in replies).encode()
        boundary("write", self.path)
        try:
            while rows:  # a full disk takes less than it is given
                rows = rows[self._file.write(rows) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            name_file(error, self.path)
            raise
        self.keys.update(reply.key for reply in replies)


def read_replies(path: Path) -> Iterator[Reply]:
    """The replies of a file, in the order of their prompts.

    Raises:
        DataError: the file is damaged.
    """
    hint = "run the recipe again: what is missing is asked for"
    with (
        reading(path, hint, "a reply cannot be read", kind=DataError),
        open(path, encoding="utf-8", newline="\n") as file,
    ):
        replies = {reply.key: reply for reply in map(reply_of, file)}
    return iter(sorted(replies.values(), key=lambda reply: reply.number))


def _key(line: bytes) -> str | None:
    """The key of a whole row; None if it is damaged."""
    try:
        return reply_of(line.decode()).key if line.endswith(b"\n") else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
