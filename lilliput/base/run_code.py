"""The Python files that a run keeps of its recipe, so that parts of one's own travel with it.

code.json                  the recipe file's name, and the SHA-256 of each file
code/<hash>/<files>        as they were; those of earlier commands stay, as what earlier phases were trained by

A run may come from a stranger, so its files are run only after somebody said so (`lilliput.base.trust`), and only those
bytes that were compared with their hashes.
"""

import os
import re
import stat
from collections.abc import Collection
from hashlib import sha256
from pathlib import Path
from typing import Any

from lilliput.base.errors import RecipeError, RunError, reading
from lilliput.base.files import verify_checksum, write_bytes
from lilliput.base.limits import limit, plain_name, raising
from lilliput.base.own_code import Code, Loaded, digest_of, loaded, module_of
from lilliput.base.ownership import below, inside
from lilliput.base.run_folder import RunFolder
from lilliput.base.trust import is_remembered
from lilliput.base.untrusted import read_object

FILE = "code.json"
FOLDER = "code"
_HINT = "put it back from a copy, or name the recipe file again: lilliput train RECIPE.py --out FOLDER"


class UntrustedCodeError(RecipeError):
    """A run needs its own code, which was not allowed to run."""


def write_code(run: RunFolder, code: Code) -> None:
    """Keep the files of a recipe in an open run.

    Raises:
        RunError: there is something else beside them; it stays.
    """
    folder = f"{FOLDER}/{code.digest[:16]}"
    target = run.path / folder
    _refuse_others(target, code.files)
    if not all((target / name).is_file() and (target / name).read_bytes() == code.files[name] for name in code.files):
        with run.replacing(folder) as partial:
            for name, data in code.files.items():
                write_bytes(partial / name, data)
    run.write_with_checksum(FILE, {"recipe": code.main, "files": code.hashes})


def folder_of(run: Path, code: Code) -> Path:
    """Return where a run keeps these files."""
    return run / FOLDER / code.digest[:16]


def read_code(run: Path) -> Code | None:
    """The files that a run keeps, compared with their hashes, and not run; None where it keeps none.

    Raises:
        RunError: a file is missing, changed, a link or too large, or its name leads elsewhere.
    """
    record = _record(run)
    if record is None:
        return None
    main, hashes = record
    folder = f"{FOLDER}/{digest_of(main, hashes)[:16]}"
    _refuse_others(run / folder, hashes)
    files = {name: _verified(inside(run, f"{folder}/{name}"), expected) for name, expected in hashes.items()}
    return Code(main=main, files=files, folder=(run / folder).absolute())


def code_for(run: Path, types: Collection[str]) -> Loaded | None:
    """The code of a run that defines types which its recipe names, running; None where it keeps none such.

    Args:
        run: the folder.
        types: names such as `mine:Mixer`.

    Raises:
        UntrustedCodeError: it was not allowed to run.
        RunError: see `read_code`.
        RecipeError: a file fails.
    """
    record = _needed(run, types)
    if record is None:
        return None
    if known := loaded(digest_of(*record)):
        return known
    code = read_code(run)
    assert code is not None
    if not is_remembered(code.digest):
        needed = ", ".join(defined(types, code.hashes)[:4])
        raise UntrustedCodeError(
            f"the recipe has parts of its own ({needed}), and the run's code that defines them may not run "
            f"yet: {', '.join(listed(code))}",
            where=str(folder_of(run, code)),
            hint="read it, then add --trust-code to let it run (in Python: trust_code=True); or give your "
            f"recipe file and this run: {code.main} --out {run}",
        )
    return Loaded(code)


def waiting(run: Path, types: Collection[str]) -> Code | None:
    """The code of a run that these types need and that does not run in this process; None where none is needed."""
    record = _needed(run, types)
    return None if record is None or loaded(digest_of(*record)) else read_code(run)


def defined(types: Collection[str], files: Collection[str]) -> list[str]:
    """Return those of the types that are in modules of these files."""
    modules = {module_of(name) for name in files}
    return sorted(name for name in types if name.partition(":")[0] in modules)


def listed(code: Code) -> list[str]:
    """The files of code with the beginning of their hashes, to be shown."""
    return [f"{name} {sha256[:12]}" for name, sha256 in code.hashes.items()]


def _needed(run: Path, types: Collection[str]) -> tuple[str, dict[str, str]] | None:
    """The record of the code of a run, where some of the types are in its modules."""
    record = _record(run) if types else None
    return record if record and defined(types, record[1]) else None


def _record(run: Path) -> tuple[str, dict[str, str]] | None:
    """The name of the recipe file, and the hash of each file by its name."""
    path = run / FILE
    if not os.path.lexists(path):
        return None
    inside(run, FILE)
    with reading(path, _HINT, "the file is damaged"):
        plain = verify_checksum(read_object(path, _HINT))
        main, files = plain["recipe"], plain["files"]
        if not isinstance(files, dict) or main not in files:
            raise ValueError("it names no recipe file")
        if len(files) > limit("code_files"):
            what = f"it names {len(files):,} files, {limit('code_files'):,} at most"
            raise RunError(what, where=str(path), hint=raising("code_files"))
        for name, expected in files.items():
            _check(name, expected, str(path))
        return main, files


def _refuse_others(folder: Path, files: Collection[str]) -> None:
    """Refuse what lies beside the files and is none: code that looks for its neighbors by itself would find it."""
    paths = (path for path in below(folder) if path.is_symlink() or not path.is_dir())
    others = sorted(name for path in paths if (name := path.relative_to(folder).as_posix()) not in files)
    if others:
        raise RunError(
            f"the folder holds files that the run did not keep: {', '.join(others[:4])}",
            where=str(folder),
            hint="move it out of the run folder, then repeat the command",
        )


def _check(name: str, expected: Any, where: str) -> None:
    for component in name.split("/"):
        plain_name(component, where=where)
    if not name.endswith(".py") or not isinstance(expected, str) or not re.fullmatch("[0-9a-f]{64}", expected):
        raise ValueError(f"{name!r:.80} is no Python file with its hash")


def _verified(path: Path, expected: str) -> bytes:
    """The bytes of a file, which are those that were kept; they are read once."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with reading(path, _HINT), os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise RunError(f"{path.name} is not a file", where=str(path), hint=_HINT)
        data = file.read(limit("code_bytes") + 1)
        if len(data) > limit("code_bytes"):
            what = f"{path.name} has more than {limit('code_bytes'):,} bytes"
            raise RunError(what, where=str(path), hint=raising("code_bytes"))
        if sha256(data).hexdigest() != expected:
            raise RunError(f"{path.name} is not the file that was kept: its hash differs", where=str(path), hint=_HINT)
        return data
