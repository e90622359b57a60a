"""Which code of run folders somebody allowed to run here, by its hash, in the configuration of that person alone.

A run never says this itself: it may come from a stranger. One byte changed is another hash, and is asked about again.
"""

import os
from datetime import date
from pathlib import Path
from typing import Any

from lilliput.base.errors import RunError
from lilliput.base.files import write_private
from lilliput.base.own_code import Code
from lilliput.base.untrusted import read_object

_HINT = "remove the file: what it allowed is asked about again"


def file() -> Path:
    """Return where it is kept; `XDG_CONFIG_HOME` says in which folder."""
    given = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(given) / "lilliput" / "trusted-code.json"


def is_remembered(digest: str) -> bool:
    """Return whether code of that hash was allowed to run.

    Raises:
        RunError: the file is damaged, or others may write it.
    """
    return digest in _read()


def remember(code: Code) -> None:
    """Let code run from now on, in all commands of this person."""
    path = file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(path, {**_read(), code.digest: {"files": code.hashes, "since": f"{date.today()}"}})


def _read() -> dict[str, Any]:
    path = file()
    if not path.exists():
        return {}
    status = path.stat()
    if hasattr(os, "geteuid") and (status.st_uid != os.geteuid() or status.st_mode & 0o022):
        raise RunError("others can write the file, and could allow code to run", where=str(path), hint=_HINT)
    return read_object(path, _HINT)
