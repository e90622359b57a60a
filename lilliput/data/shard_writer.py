"""Writes one side of a corpus as a sequence of shards, and resumes from what a record says of them."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lilliput.base.append_file import AppendFile


@dataclass(kw_only=True)
class ShardRecord:
    """A shard, as far as it counts."""

    name: str
    documents: int = 0
    tokens: int = 0
    text: int = 0
    """UTF-8 bytes of its documents."""
    length: int = 0
    sha256: str = ""
    closed: bool = False


class ShardWriter:
    """The files of one kind, of which the last one may be open.

    Args:
        folder: of the files.
        name: of a file, from its number in the sequence.
        head: the first bytes of each file.
        most: a file is closed after the document that brings it to this many tokens.
    """

    def __init__(self, folder: Path, name: Callable[[int], str], head: bytes = b"", most: float = float("inf")):
        self.shards: list[ShardRecord] = []
        self._folder, self._name, self._head, self._most = folder, name, head, most
        self._file: AppendFile | None = None

    def can_leave(self, shards: Sequence[ShardRecord]) -> bool:
        """Return whether a writer of this kind can have left these files."""
        names = [self._name(number) for number in range(len(shards))]
        return [shard.name for shard in shards] == names and all(shard.closed for shard in shards[:-1])

    def resume(self, shards: Iterable[ShardRecord]) -> list[str]:
        """Resume after these files; the names of those that are damaged."""
        damaged = []
        for shard in shards:
            self.shards.append(shard)
            file = AppendFile.reopened(self._folder / shard.name, shard.length, shard.sha256)
            if file is None:
                damaged.append(shard.name)
            elif shard.closed:
                file.close()
            else:
                self._file = file
        return damaged

    def add(self, data: Iterable[bytes | memoryview], tokens: int = 0, text: int = 0) -> bool:
        """Append the next document, in slices; whether that closed a file."""
        if self._file is None:
            self.begin()
        assert self._file is not None
        for some in data:
            self._file.write(some)
        shard = self.shards[-1]
        shard.documents, shard.tokens, shard.text = shard.documents + 1, shard.tokens + tokens, shard.text + text
        if shard.tokens < self._most:
            return False
        self.close()
        return True

    def begin(self) -> None:
        """Begin the next file."""
        self.shards.append(ShardRecord(name=self._name(len(self.shards))))
        self._file = AppendFile(self._folder / self.shards[-1].name)
        self._file.write(self._head)

    def flush(self) -> None:
        """Bring what is written to the disk, and note how much it is."""
        if self._file is not None:
            self.shards[-1].sha256 = self._file.sync()
            self.shards[-1].length = self._file.length

    def close(self) -> None:
        """Close the file that is being written, if one is."""
        if self._file is not None:
            self.flush()
            self._file.close()
            self._file, self.shards[-1].closed = None, True

    def reset(self) -> None:
        """Forget all files, whatever is unfinished."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._file, self.shards = None, []
