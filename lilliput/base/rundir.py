"""A run folder: the only state of a run. Parts of it are made once, and again only when their inputs change.

run.json           format, lilliput version; from the beginning of training on the settled machine, what it is
                   made with, and changes of either
recipe.json        the recipe as data
command.json       the command that it comes from, where it comes from one
environment.json   versions and hardware of the last process that worked here
parts/             one record a part: its inputs and their hash, whether it is done, what came out
verified.json      which token files were hashed, and how to tell that they have not changed since
tokenizer/  shards/<corpus>/  phases/<nn-name>/  releases/<name>/  evals/<name>/
cards/             the model cards as they were written, whatever became of them in releases/
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lilliput.base.errors import InUseError, RunError
from lilliput.base.files import PARTIAL, hash_of, move, read_json, sealed, unsealed, write_json

FORMAT = 1

Make = Callable[[Path], Any]
Whole = Callable[[Path, Any], bool]


def always(folder: Path, outputs: Any) -> bool:
    """The test of a part whose files cannot be lost but with its record."""
    return True


class RunFolder:
    """An open run; a context manager that keeps other processes out.

    Raises:
        InUseError: another process has the run open.
        RunError: the folder cannot be written, or is of another format.
    """

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> "RunFolder":
        where = str(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise RunError(
                f"the run folder cannot be written ({error.strerror})",
                where=where,
                hint="choose another one with --out, or free it for writing",
            ) from error
        try:
            if not _lock(self._lock):
                raise InUseError(
                    "another process is working on this run",
                    where=where,
                    hint="wait for it, stop it, or use another --out",
                )
            self._check_format()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._lock)

    def read(self, name: str) -> Any | None:
        """A JSON file of the run, or None if it is not there yet.

        Raises:
            RunError: it is damaged.
        """
        path = self.path / name
        try:
            return unsealed(read_json(path)) if path.exists() else None
        except ValueError as error:
            raise RunError(
                f"the file is damaged ({error})",
                where=str(path),
                hint="put it back from a copy, or remove it: what it records is made again",
            ) from error

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file of the run."""
        write_json(self.path / name, value)

    def write_sealed(self, name: str, value: dict[str, Any]) -> None:
        """The same for one that decides what is done again: `read` then refuses it with any byte changed."""
        self.write(name, sealed(value))

    def part(self, name: str, inputs: Any, make: Make, whole: Whole = always) -> Any:
        """The outputs of a part, made now unless it is done with the same inputs.

        Args:
            name: also the folder of the part, relative to the run.
            inputs: JSON value that decides the result. A part begun with others is replaced once this one is made.
            make: given the part's folder (which holds what an interrupted call left), returns JSON outputs.
            whole: given the part's folder and its recorded outputs, whether they are still there; if not, `make` is
                called again.
        """
        self.put_back(name)  # a killed process could not
        outputs = self.made(name, inputs, whole)
        if outputs is not None:
            return outputs
        folder, record = self.path / name, self.record(name)
        begun = {"inputs": hash_of(inputs), "done": False, "from": inputs}
        shutil.rmtree(folder.with_name(folder.name + PARTIAL), ignore_errors=True)
        try:
            if record.get("inputs") != begun["inputs"]:
                self._put_aside(name)
                if not record.get("inputs"):
                    self._drop_aside(name)
            self.write_sealed(_record_file(name), begun)
            outputs = make(folder)
        except BaseException:
            self.put_back(name)
            raise
        self._drop_aside(name)
        self.write_sealed(_record_file(name), begun | {"done": True, "outputs": outputs})
        return outputs

    def lasting_part(self, name: str, inputs: Any, make: Make, whole: Whole = always) -> Any:
        """The same for a part too dear to be replaced unasked, such as a trained phase.

        Raises:
            RunError: the part was begun with other inputs; nothing is removed.
        """
        self.refuse_change(name, inputs)
        return self.part(name, inputs, make, whole)

    def refuse_change(self, name: str, inputs: dict[str, Any]) -> None:
        """Refuse inputs of a lasting part, or some of them, that are not those it was begun with; changes nothing.

        Raises:
            RunError: they are others; what differs is named.
        """
        begun = self.record(name).get("from")
        if begun is None:
            return
        changed = differences({key: begun.get(key) for key in inputs}, inputs)
        if changed:
            raise RunError(
                f"{name} was made from something else: {'; '.join(changed[:4])}",
                where=str(self.path),
                hint=f"begin another run with --out, or give this part up: lilliput clean {self.path} --from {name}",
            )

    def made(self, name: str, inputs: Any, whole: Whole = always) -> Any | None:
        """The outputs of a part that is done with these inputs and still whole, else None; changes nothing."""
        record = self.record(name)
        done = record.get("inputs") == hash_of(inputs) and record["done"] and whole(self.path / name, record["outputs"])
        return record["outputs"] if done else None

    def record(self, name: str) -> dict[str, Any]:
        """What is noted of a part: `inputs` (their hash), `from` (themselves), `done`, `outputs`; empty without one."""
        return self.read(_record_file(name)) or {}

    def remove(self, name: str) -> None:
        """Give a part up: its folder and its record, in an order that a kill at any moment cannot confuse."""
        self.put_back(name)
        if not self.record(name) and not (self.path / name).exists():
            return
        self.write_sealed(_record_file(name), {"inputs": None, "done": False})
        if (self.path / name).exists():
            shutil.rmtree(self.path / name)
        (self.path / _record_file(name)).unlink()

    def put_back(self, name: str) -> None:
        """What a killed process had put aside of a part, if its record still is: it is better than nothing."""
        folder, record = self.path / name, self.path / _record_file(name)
        if _aside(record).exists() and _aside(folder).exists():
            record.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            move(_aside(folder), folder)
        if _aside(record).exists() and not record.exists():
            move(_aside(record), record)
        self._drop_aside(name)

    def _put_aside(self, name: str) -> None:
        """Make room for a new part, the record first: at no moment does it stand beside another one's folder.

        Renaming needs no room, so that a disk that is full can neither stop this nor what undoes it.
        """
        folder, record = self.path / name, self.path / _record_file(name)
        for path in (record, folder):
            if path.exists():
                move(path, _aside(path))

    def _drop_aside(self, name: str) -> None:
        """Its record first: a folder without one is never put back, so that it may be half gone."""
        _aside(self.path / _record_file(name)).unlink(missing_ok=True)
        shutil.rmtree(_aside(self.path / name), ignore_errors=True)

    def _check_format(self) -> None:
        record = self.read("run.json") or {"format": FORMAT}
        if record["format"] != FORMAT:
            raise RunError(
                f"the run has format {record['format']}, this version of Lilliput reads {FORMAT}",
                where=str(self.path),
                hint="continue it with the version that began it, or begin another with --out",
            )


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two JSON values differ, as texts like `phase.optimizer.lr was 0.01, not 0.02`."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [text for key in keys for text in differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [text for place, (one, other) in pairs for text in differences(one, other, f"{path}.{place}")]
    return [] if old == new else [f"{path} was {_short(old)}, not {_short(new)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 48 else text[:45] + "..."


def _aside(path: Path) -> Path:
    """Where a part, or its record, waits until another one is whole."""
    return path.with_name(f"{path.name}.before{PARTIAL}")


def _record_file(name: str) -> str:
    return f"parts/{name.replace('/', '.')}.json"


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
