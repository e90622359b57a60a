"""Token files that are being written: what of them outlives a kill, and where tokenization resumes.

<folder>.begun-<key>/     other inputs have another key, so that nothing of theirs is ever resumed
    train-00000.bin       as many bytes of each file count as the record says, with their SHA-256
    heldout-00000.bin
    heldout.txt.jsonl
    progress.json         sealed; written anew whenever a token file is closed

Tokenization resumes where the record was written. If a file is not what the record says, everything is encoded again.
"""

import glob
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from lilliput.base.files import (
    PARTIAL,
    hash_of,
    name_file,
    read_json,
    replace_folder,
    verify_checksum,
    with_checksum,
    write_json,
)
from lilliput.base.ownership import BEGUN
from lilliput.data.resumable import CorpusProgress, Position
from lilliput.data.shard_writer import ShardRecord, ShardWriter

PROGRESS = "progress.json"
_FORMAT = 2


class PartialShards:
    """A folder of token files until it is whole; a context manager, at whose end by an error it stays, as far as kept.

    Args:
        folder: where the files will be.
        inputs: JSON value that decides what is in them, to the byte; None if unknown: then nothing is resumed and
            nothing stays.
    """

    def __init__(self, folder: Path, inputs: Any):
        self._folder, self._key = folder, None if inputs is None else hash_of([_FORMAT, inputs])
        self.path = folder.with_name(f"{folder.name}{BEGUN}{self._key[:12]}" if self._key else folder.name + PARTIAL)
        self._writers: dict[str, ShardWriter] = {}
        self.kept = Position()
        """Position up to which documents were in the files when this process opened them."""
        self.closed = 0
        """Number of files that were closed then."""
        self.damaged: list[str] = []
        """Names of files that are not what the record says, or of the record itself: then nothing is kept."""

    def __enter__(self) -> "PartialShards":
        return self

    def open(self, writers: dict[str, ShardWriter]) -> None:
        """Let these writers resume what is there."""
        self._writers, record = writers, self._record()
        if record is None or not record.is_of(writers):
            self.damaged = [PROGRESS] if self._key and (self.path / PROGRESS).exists() else []
        else:
            _remove_unrecorded(self.path, record)
            self.damaged = [bad for name, writer in writers.items() for bad in writer.resume(record.shards[name])]
            if not self.damaged:
                self.kept = record.kept
                self.closed = sum(shard.closed for writer in writers.values() for shard in writer.shards)
                return
        for writer in writers.values():
            writer.reset()
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)

    def commit(self, progress: CorpusProgress) -> None:
        """Make all that is written before `progress` outlive a kill."""
        if self._key is None:
            return
        for writer in self._writers.values():
            writer.flush()
        shards = {name: [asdict(shard) for shard in writer.shards] for name, writer in self._writers.items()}
        record = {"key": self._key, "kept": asdict(progress.position()), "shards": shards}
        write_json(self.path / PROGRESS, with_checksum(record))

    def finish(self) -> None:
        """Put the folder, which is whole, where it belongs; what was begun from other inputs goes."""
        (self.path / PROGRESS).unlink(missing_ok=True)
        replace_folder(self.path, self._folder)
        for other in self._folder.parent.glob(f"{glob.escape(self._folder.name)}{BEGUN}*"):
            shutil.rmtree(other, ignore_errors=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *where: object) -> None:
        for writer in self._writers.values():
            writer.reset()
        if error is not None:  # a full disk should not be filled by what no record counts on
            record = self._record()
            shutil.rmtree(self.path, ignore_errors=True) if record is None else _remove_unrecorded(self.path, record)
        if isinstance(error, OSError):
            name_file(error, self.path)

    def _record(self) -> "_Record | None":
        """Return what is noted of files of this key; None without any that can be read and makes sense."""
        if self._key is None or not (self.path / PROGRESS).is_file():
            return None
        try:
            plain = verify_checksum(read_json(self.path / PROGRESS))
            if plain["key"] != self._key:
                return None
            found = {name: shards for name, shards in plain["shards"].items() if isinstance(shards, list)}
            shards = {name: list(map(_shard, found[name])) for name in found}
            return _Record(_position(plain["kept"]), shards)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


class _Record(NamedTuple):
    """Record of partial files."""

    kept: Position
    shards: dict[str, list[ShardRecord]]
    """By writer."""

    def is_of(self, writers: dict[str, ShardWriter]) -> bool:
        """Return whether these writers can have left it: then names lead nowhere else."""
        return self.shards.keys() == writers.keys() and all(
            writers[name].can_leave(shards) for name, shards in self.shards.items()
        )


def partial_folders(shards: Path) -> list[Path]:
    """The folders of token files that are not whole yet."""
    return sorted(path for path in shards.glob(f"*{BEGUN}*") if path.is_dir())


def _remove_unrecorded(folder: Path, record: _Record) -> None:
    """Remove what a record does not count on, and what is no file itself: a link leads to what is not ours."""
    lengths = {shard.name: shard.length for shards in record.shards.values() for shard in shards}
    for path in folder.iterdir():
        if path.name == PROGRESS:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in lengths or path.is_symlink() or not path.is_file():
            path.unlink()
        elif path.stat().st_size > lengths[path.name]:
            with open(path, "r+b") as file:
                file.truncate(lengths[path.name])


def _shard(plain: dict[str, Any]) -> ShardRecord:
    shard = ShardRecord(**plain)
    numbers = (shard.documents, shard.tokens, shard.text, shard.length)
    if not (all(map(_is_count, numbers)) and isinstance(shard.sha256, str) and isinstance(shard.closed, bool)):
        raise ValueError(f"{shard.name!r:.80} has numbers that cannot be")
    return shard


def _position(plain: dict[str, Any]) -> Position:
    position = Position(items=plain["items"], mark=plain["mark"], text=plain["text"], dropped=plain["dropped"])
    if not all(map(_is_count, (position.items, *position.dropped.values()))) or len(bytes.fromhex(position.text)) != 32:
        raise ValueError("a position has numbers that cannot be")
    return position


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0
