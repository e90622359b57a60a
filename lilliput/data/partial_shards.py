"""Token files that are being written: what of them outlives a kill, and where encoding resumes.

<folder>.begun-<key>/     other inputs have another key, so that nothing of theirs is ever resumed
    train-00000.bin       as many bytes of each file count as the record says, with their SHA-256
    heldout-00000.bin
    heldout.txt.jsonl
    progress.json         sealed; written again whenever a token file is closed
"""

import glob
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from lilliput.base.files import (
    PARTIAL,
    name_file,
    read_json,
    replace_folder,
    verify_checksum,
    with_checksum,
    write_json,
)
from lilliput.base.ownership import BEGUN
from lilliput.data.shard_writer import CorpusProgress, Position, ShardRecord, ShardWriter, other_corpus

PROGRESS = "progress.json"
_FORMAT = 1


class PartialShards:
    """A folder of token files until it is whole; a context manager, at whose end by an error it stays, as far as kept.

    Args:
        folder: where the files will be.
        key: decides what is in them, to the byte; None if unknown: then nothing is resumed and nothing stays.
    """

    def __init__(self, folder: Path, key: str | None):
        self._folder, self._key = folder, key
        self.path = folder.with_name(f"{folder.name}{BEGUN}{key[:12]}" if key else folder.name + PARTIAL)
        self._writers: dict[str, ShardWriter] = {}
        self.kept = Position()
        """Position covered by the resumed files and by those that this process kept."""
        self.damaged: list[str] = []
        """Names of files that are not what the record says, and are made again; of the record, if it is not sound."""
        self.closed = 0
        """Files that were closed when it was opened."""

    def __enter__(self) -> "PartialShards":
        return self

    def open(self, writers: dict[str, ShardWriter]) -> Position:
        """Resume what is there with these writers; return the earliest position that reading has to begin at."""
        self._writers = writers
        record = self._record()
        if record is None or not record.is_of(writers):
            self.damaged = [PROGRESS] if self._key and (self.path / PROGRESS).exists() else []
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir(parents=True)
            return Position()
        self.kept = record.kept
        self.closed = sum(entry.closed for writer in record.writers.values() for entry in writer)
        for path in self.path.iterdir():
            if path.name != PROGRESS and (path.name not in record.lengths or not _is_plain(path)):
                _remove(path)
        damaged = [
            bad for name, writer in writers.items() for bad in writer.resume(record.writers[name], self.kept.items)
        ]
        self.damaged = [entry.name for entry in damaged]
        return min((self.kept, *(entry.begins for entry in damaged)), key=lambda position: position.items)

    def commit(self, progress: CorpusProgress) -> None:
        """Make all that is written before `progress` outlive a kill."""
        if self._key is None:
            return
        for writer in self._writers.values():
            writer.flush()
        writers = {name: [asdict(entry) for entry in writer.shards] for name, writer in self._writers.items()}
        self.kept = progress.position()
        record = {"format": _FORMAT, "key": self._key, "kept": asdict(self.kept), "writers": writers}
        write_json(self.path / PROGRESS, with_checksum(record))

    def compare(self, progress: CorpusProgress) -> None:
        """Make sure that what was read again is what was read before.

        Raises:
            DataError: it is not.
        """
        now = progress.position()
        same = (now.items, now.text, now.dropped) == (self.kept.items, self.kept.text, self.kept.dropped)
        if not same or not all(writer.is_sound for writer in self._writers.values()):
            raise other_corpus(self.path)

    def finish(self) -> None:
        """Put the folder, which is whole, where it belongs; what was begun from other inputs goes."""
        (self.path / PROGRESS).unlink(missing_ok=True)
        replace_folder(self.path, self._folder)
        for other in self._folder.parent.glob(f"{glob.escape(self._folder.name)}{BEGUN}*"):
            shutil.rmtree(other, ignore_errors=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *where: object) -> None:
        for writer in self._writers.values():
            writer.abandon()
        if error is not None:
            self._free()
        if isinstance(error, OSError):
            name_file(error, self.path)

    def _free(self) -> None:
        """Remove what no record counts on: a full disk should not be filled by it."""
        record = self._record()
        if record is None:
            shutil.rmtree(self.path, ignore_errors=True)
            return
        for path in self.path.iterdir():
            if path.name == PROGRESS:
                continue
            if path.name not in record.lengths or not _is_plain(path):
                _remove(path)
            elif path.stat().st_size > record.lengths[path.name]:
                with open(path, "r+b") as file:
                    file.truncate(record.lengths[path.name])

    def _record(self) -> "_Record | None":
        """Return what is noted of files of this key; None without any that can be read and makes sense."""
        if self._key is None or not (self.path / PROGRESS).is_file():
            return None
        try:
            plain = verify_checksum(read_json(self.path / PROGRESS))
            if (plain["format"], plain["key"]) != (_FORMAT, self._key):
                return None
            writers = {
                name: list(map(_entry, writer)) for name, writer in plain["writers"].items() if isinstance(writer, list)
            }
            return _Record(_position(plain["kept"]), writers)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


class _Record(NamedTuple):
    """Record of partial files."""

    kept: Position
    writers: dict[str, list[ShardRecord]]

    @property
    def lengths(self) -> dict[str, int]:
        """Bytes that count, by file."""
        return {entry.name: entry.length for writer in self.writers.values() for entry in writer}

    def is_of(self, writers: dict[str, ShardWriter]) -> bool:
        """Return whether these writers can have left it: names lead nowhere else, and files follow each other."""
        return self.writers.keys() == writers.keys() and all(
            writers[name].left(entries, self.kept.items) for name, entries in self.writers.items()
        )


def partial_folders(shards: Path) -> list[Path]:
    """The folders of token files that are not whole yet."""
    return sorted(path for path in shards.glob(f"*{BEGUN}*") if path.is_dir())


def _entry(plain: dict[str, Any]) -> ShardRecord:
    rest = {key: value for key, value in plain.items() if key != "begins"}
    entry = ShardRecord(begins=_position(plain["begins"]), **rest)
    numbers = (entry.documents, entry.tokens, entry.text, entry.length)
    if not (all(map(_is_count, numbers)) and isinstance(entry.sha256, str) and isinstance(entry.closed, bool)):
        raise ValueError(f"{entry.name!r:.80} has numbers that cannot be")
    return entry


def _position(plain: dict[str, Any]) -> Position:
    position = Position(**plain)
    if not all(map(_is_count, (position.items, *position.dropped.values()))) or len(bytes.fromhex(position.text)) != 32:
        raise ValueError("a position has numbers that cannot be")
    return position


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_plain(path: Path) -> bool:
    """Return whether it is a file itself: what a link leads to is not ours to write to, and a pipe may never end."""
    return path.is_file() and not path.is_symlink()


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
