"""Which files were compared with their hash and have not changed since, so that gigabytes are hashed once.

A file is taken for unchanged while its size, its times of change (`mtime`, and `ctime`, which no program can set) and
its inode are what they were when it was hashed. A disk that loses bits changes none of them. Therefore whoever trusts
such a file gets the CRC-32 of each of its blocks, and compares a block before reading it.
"""

import hashlib
import os
import time
import zlib
from array import array
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

BLOCK = 1 << 20
"""Bytes of a block; the last one of a file may be shorter."""
RECENT = 2.0
"""Seconds: a file changed so shortly before may change again under the same time, as coarse as FAT's. It is then
hashed again."""

Sums = array
"""CRC-32 of every block of a file, as `array("I")`."""
OnProgress = Callable[[int, int], None]
"""Is told how many bytes are hashed, of how many."""


class HashCache:
    """Cache of hashes of the files below a folder.

    Args:
        root: the folder.
        known: what `plain` gave before.
        progress: told of bytes done and in all, while files are hashed.
    """

    def __init__(
        self, root: Path, known: Mapping[str, Any] | None = None, progress: OnProgress = lambda done, of: None
    ):
        self._root, self._progress = root, progress
        self._known = dict(known or {})

    def check(self, hashes: Mapping[Path, str]) -> tuple[dict[Path, Sums], list[Path]]:
        """Compare files with their hex SHA-256, those that have changed since the last time in full.

        Returns:
            the sums of the blocks of every file that is as it should be; the files that are not.

        Raises:
            OSError: a file cannot be read.
        """
        sums = {path: self._remembered(path, sha256) for path, sha256 in hashes.items()}
        waiting = [path for path, known in sums.items() if known is None]
        done, total = 0, sum(path.stat().st_size for path in waiting)
        differing = []
        for path in waiting:

            def progress(read: int, before: int = done) -> None:
                self._progress(before + read, total)

            began, stamp = time.time_ns(), _stamp(path)
            sha256, blocks = digest(path, progress)
            sums[path], done = blocks, done + stamp[0]
            self._known.pop(self._key(path), None)
            if sha256 != hashes[path]:
                differing.append(path)
            elif _stamp(path) == stamp and max(stamp[1:3]) < began - RECENT * 1e9:
                self._known[self._key(path)] = {"stamp": stamp, "sha256": sha256, "blocks": blocks.tobytes().hex()}
        return {path: known for path, known in sums.items() if known is not None and path not in differing}, differing

    def plain(self) -> dict[str, Any]:
        """Return what is known of files that are still there, as JSON values."""
        return {name: known for name, known in sorted(self._known.items()) if (self._root / name).is_file()}

    def _remembered(self, path: Path, sha256: str) -> Sums | None:
        known = self._known.get(self._key(path))
        if known is None or known["sha256"] != sha256 or known["stamp"] != _stamp(path):
            return None
        return array("I", bytes.fromhex(known["blocks"]))

    def _key(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def digest(path: Path, progress: Callable[[int], None] = lambda read: None) -> tuple[str, Sums]:
    """Hex SHA-256 of a file, and the CRC-32 of each of its blocks."""
    sha256, sums, read = hashlib.sha256(), array("I"), 0
    with open(path, "rb", buffering=0) as file:
        while block := _block(file):
            sha256.update(block)
            sums.append(zlib.crc32(block))
            read += len(block)
            progress(read)
    return sha256.hexdigest(), sums


def _block(file: Any) -> bytes | memoryview:
    """The next whole block, or what is left."""
    block = file.read(BLOCK)
    while len(block) < BLOCK and (more := file.read(BLOCK - len(block))):
        block += more
    return block


def _stamp(path: Path) -> list[int]:
    """Return what changes with a file."""
    about = os.stat(path)
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]
