"""A folder that one process works in at a time, and its JSON files."""

import os
from pathlib import Path
from typing import Any

from lilliput.base.errors import InUseError, RunError, reading
from lilliput.base.files import read_json, verify_checksum, with_checksum, write_json
from lilliput.base.ownership import finished

LOCK = ".lock"


class LockedFolder:
    """A folder that is held until it is left; a context manager that keeps other processes out.

    Raises:
        InUseError: another process holds it.
        RunError: it cannot be written, or is not what it should be; nothing was written then.
    """

    def __init__(self, path: Path):
        self.path = path

    def check(self) -> None:
        """Refuse a folder that holds something else; called before anything is written into it, and once it is held.

        Raises:
            RunError: it does.
        """

    def refuse_others(self, what: str, record: str) -> None:
        """Refuse a folder that is not empty, hidden files and an unfinished `record` aside.

        Args:
            what: it should be, such as "run".
            record: the file that makes a folder one.

        Raises:
            RunError: it is not.
        """
        names = (path.name for path in sorted(self.path.iterdir()))
        if others := [name for name in names if not name.startswith(".") and finished(name) != record]:
            raise RunError(
                f"the folder is not a {what} and not empty: it holds {', '.join(others[:4])}",
                where=str(self.path),
                hint=f"give a new or empty folder with --out, or a {what} to resume",
            )

    def __enter__(self):
        where = str(self.path)
        self.check()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            self._lock = os.open(self.path / LOCK, flags)
        except OSError as error:
            raise RunError(
                f"the run folder cannot be written ({error.strerror})",
                where=where,
                hint="choose another folder with --out, or make this one writable",
            ) from error
        try:
            if not _lock(self._lock):
                raise InUseError(
                    "another process is working on this run",
                    where=where,
                    hint="wait for it, stop it, or choose another folder with --out",
                )
            self.check()
            self.on_open()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def on_open(self) -> None:
        """Called once the folder is held."""

    def __exit__(self, *error: object) -> None:
        os.close(self._lock)

    def read(self, name: str) -> Any | None:
        """A JSON file of the folder, or None if it is not there yet.

        Raises:
            RunError: it is damaged.
        """
        path = self.path / name
        with reading(path, self.hint(name), "the file is damaged"):
            return verify_checksum(read_json(path)) if path.exists() else None

    def hint(self, name: str) -> str:
        """Return what to do about a damaged file."""
        return "put it back from a copy, or remove it: it is written again"

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file of the folder."""
        write_json(self.path / name, value)

    def write_with_checksum(self, name: str, value: dict[str, Any]) -> None:
        """The same for one that decides what is done again: `read` then refuses it with any byte changed."""
        self.write(name, with_checksum(value))


def _lock(handle: int) -> bool:
    """Take a lock that ends with the process, however it ends; False if another has it. Trust the user without one."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows; network file systems without locks
        return True
    return True
