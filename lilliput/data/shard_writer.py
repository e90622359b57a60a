"""Writes one side of a corpus as a sequence of shards, and resumes after an interruption.

A file is noted with the position in the corpus at which it begins. One that is damaged is made again from there, and it
alone.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lilliput.base.append_file import AppendFile
from lilliput.base.errors import DataError
from lilliput.data.documents import TextHash
from lilliput.data.resumable import Item, Offset


@dataclass(frozen=True, kw_only=True)
class Position:
    """Position of reading in a corpus, with what was seen up to it."""

    items: int = 0
    """Documents, those that filters dropped too."""
    mark: Offset | None = None
    text: str = TextHash().hex()
    """`TextHash` of the documents that were kept."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Number of documents dropped by filters, by reason."""


class CorpusProgress:
    """A position that moves on, item by item."""

    def __init__(self, start: Position):
        self.items, self.mark = start.items, start.mark
        self._texts, self._dropped = TextHash(start.text), Counter(start.dropped)

    def step(self, item: Item, mark: Offset | None) -> None:
        """Go past an item."""
        if isinstance(item, str):
            self._dropped[str(item)] += 1  # without the beginning of the document, which it may hold
        else:
            self._texts.add(item.id, item.text)
        self.items, self.mark = self.items + 1, mark

    def dropped(self, reason: str) -> int:
        """Number of documents dropped for a reason so far."""
        return self._dropped[reason]

    def position(self) -> Position:
        """Return where it stands now."""
        dropped = dict(sorted(self._dropped.items()))
        return Position(items=self.items, mark=self.mark, text=self._texts.hex(), dropped=dropped)


@dataclass(kw_only=True)
class ShardRecord:
    """A shard, as far as it counts."""

    name: str
    begins: Position
    """Before its first document."""
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
        self._kept = 0
        self._damaged: list[ShardRecord] = []
        self._again: AppendFile | None = None
        """The damaged file that is being made again."""
        self._left = 0
        """Number of documents it still waits for."""

    def left(self, entries: list[ShardRecord], kept: int) -> bool:
        """Return whether a writer of this kind can have left these files after so many items."""
        begins = [entry.begins.items for entry in entries]
        return (
            [entry.name for entry in entries] == [self._name(number) for number in range(len(entries))]
            and begins == sorted(begins)
            and all(begun <= kept for begun in begins)
            and all(entry.closed for entry in entries[:-1])
        )

    def resume(self, entries: list[ShardRecord], kept: int) -> list[ShardRecord]:
        """Resume from these files, which hold the documents among the first `kept` items; those that are damaged."""
        self.shards, self._kept = entries, kept
        for entry in entries:
            file = AppendFile.reopened(self._folder / entry.name, entry.length, entry.sha256)
            if file is None:
                self._damaged.append(entry)
            elif entry.closed:
                file.close()
            else:
                self._file = file
        return list(self._damaged)

    @property
    def is_sound(self) -> bool:
        """Return whether no file is damaged any more."""
        return not self._damaged

    def wants(self, item: int) -> bool:
        """Return whether the document at this index of the corpus is in no file yet, or in a damaged one."""
        return item >= self._kept or (bool(self._damaged) and self._file_of(item) in self._damaged)

    def add(self, progress: CorpusProgress, data: Iterable[bytes | memoryview], tokens: int = 0, text: int = 0) -> bool:
        """Append a wanted document, the next one at `progress`, in slices; whether that closed a file.

        Raises:
            DataError: a file that was damaged becomes another one than it was.
        """
        if progress.items < self._kept:
            self._make_again(self._file_of(progress.items), data)
            return False
        if self._file is None:
            self.begin(progress)
        assert self._file is not None
        for some in data:
            self._file.write(some)
        entry = self.shards[-1]
        entry.documents, entry.tokens, entry.text = entry.documents + 1, entry.tokens + tokens, entry.text + text
        if entry.tokens < self._most:
            return False
        self.close()
        return True

    def begin(self, progress: CorpusProgress) -> None:
        """Begin the next file."""
        self.shards.append(ShardRecord(name=self._name(len(self.shards)), begins=progress.position()))
        self._file = self._new(self.shards[-1].name)

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

    def abandon(self) -> None:
        """Stop, whatever is unfinished."""
        for file in (self._file, self._again):
            if file is not None:
                with suppress(OSError):
                    file.close()

    def _file_of(self, item: int) -> ShardRecord:
        """The file that an item among the kept ones would be in."""
        index = bisect_right(self.shards, item, key=lambda entry: entry.begins.items) - 1
        if index < 0:
            raise other_corpus(self._folder)
        return self.shards[index]

    def _make_again(self, entry: ShardRecord, data: Iterable[bytes | memoryview]) -> None:
        if self._again is None:
            self._again, self._left = self._new(entry.name), entry.documents
        for some in data:
            self._again.write(some)
        self._left -= 1
        if self._left:
            return
        if self._again.sync() != entry.sha256:
            raise other_corpus(self._folder)
        if entry.closed:
            self._again.close()
        else:
            self._file = self._again
        self._again = None
        self._damaged.remove(entry)

    def _new(self, name: str) -> AppendFile:
        file = AppendFile(self._folder / name)
        file.write(self._head)
        return file


def other_corpus(folder: Path) -> DataError:
    """The error of a corpus that is not what it was when encoding began."""
    return DataError(
        "the corpus does not return the same documents as before",
        where=str(folder),
        hint="remove that folder to tokenize everything again; a corpus must return the same documents every time",
    )
