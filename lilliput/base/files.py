"""Files that are whole or absent: written under a temporary name, fsynced, renamed, hashed."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

PARTIAL = ".partial"
"""Suffix of everything that is still being written; whoever finds one may delete it."""
SEAL = "sha256"
"""Key of a JSON object's own hash."""


def boundary(what: str, path: Path) -> None:
    """Called before everything that changes a disk: nothing here, a kill in the tests that put one in its place."""


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of(value: Any) -> str:
    """Hex SHA-256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_bytes(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a whole file or leave the old one untouched; a new one with this mode, less what the system takes away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    boundary("write", path)
    try:
        with _created(partial, mode) as file:
            file.write(data)
            file.flush()
            boundary("fsync", path)
            os.fsync(file.fileno())
    except OSError as error:  # a full disk: it names no file, and half of ours should not fill it further
        partial.unlink(missing_ok=True)
        name_file(error, path)
        raise
    boundary("rename", path)
    os.replace(partial, path)
    _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file or leave the old one untouched."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a whole JSON file, indented, ending in a newline."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_private(path: Path, value: Any) -> None:
    """The same for a file that nobody else may read or write."""
    path.with_name(path.name + PARTIAL).unlink(missing_ok=True)  # it would keep the mode that it has
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode(), mode=0o600)


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def with_checksum(value: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with its own hash, by which `verify_checksum` sees a change of any byte."""
    return value | {SEAL: hash_of(value)}


def verify_checksum(value: Any) -> Any:
    """The value that was sealed; one without a seal as it is.

    Raises:
        ValueError: it is not the one that was sealed.
    """
    if not isinstance(value, dict) or SEAL not in value:
        return value
    inside = {key: part for key, part in value.items() if key != SEAL}
    if hash_of(inside) != value[SEAL]:
        raise ValueError("it differs from its own hash")
    return inside


def move(path: Path, to: Path) -> None:
    """Rename a file or a folder, lastingly; needs no room on the disk."""
    boundary("rename", path)
    os.rename(path, to)
    _sync_folder(path.parent)
    if to.parent != path.parent:
        _sync_folder(to.parent)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success the file there is fsynced and replaces `path`, else it is removed."""
    partial = path.with_name(path.name + PARTIAL)
    partial.unlink(missing_ok=True)
    try:
        yield partial
        _sync(partial)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            name_file(error, path)
        raise
    move(partial, path)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder; on success every file in it is fsynced and it replaces `path`, else it is removed."""
    partial = path.with_name(path.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        replace_folder(partial, path)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            name_file(error, path)
        raise


def replace_folder(new: Path, path: Path) -> None:
    """Put a folder in the place of another one, or of none, after every file in it is fsynced."""
    for path_inside in new.rglob("*"):
        _sync(path_inside) if path_inside.is_file() else _sync_folder(path_inside)
    _sync_folder(new)
    replaced = path.with_name(path.name + ".replaced" + PARTIAL)
    shutil.rmtree(replaced, ignore_errors=True)
    if path.exists():
        boundary("rename", path)
        os.rename(path, replaced)
    boundary("rename", new)
    os.rename(new, path)
    _sync_folder(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def name_file(error: OSError, path: Path) -> None:
    """Say which file an error is about: that of a full disk names none."""
    if error.filename is None:
        error.filename = str(path)


def _created(path: Path, mode: int) -> BinaryIO:
    """A new file, or an old one emptied; of a symbolic link, which would lead elsewhere, an error."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), mode), "wb")


def _sync(path: Path, mode: int = os.O_RDWR) -> None:
    boundary("fsync", path)
    handle = os.open(path, mode)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(path: Path) -> None:
    """Make a rename durable; some platforms cannot open folders, where the rename alone must do."""
    if hasattr(os, "O_DIRECTORY"):
        _sync(path, os.O_RDONLY)


def seed_of(key: str) -> int:
    """63 bits that depend on the key alone and look random."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1
