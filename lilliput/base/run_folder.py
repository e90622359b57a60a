"""A run folder: the only state of a run. Parts of it are made once, and again only when their inputs change.

run.json           format, lilliput version; from the beginning of training on the resolved machine, what it is
                   made with, and changes of either
recipe.json        the recipe as data
command.json       the command that it comes from, where it comes from one
environment.json   versions and hardware of the last process that worked here
parts/             one record a part: its inputs and their hash, whether it is done, what came out
verified.json      which token files were hashed, and how to tell that they have not changed since
replies/<corpus>/  what a teacher answered, as it came
tokenizer/  shards/<corpus>/  phases/<nn-name>/  computed/<nn-name>/
releases/<name>/  evals/<name>/
cards/             the model cards as they were written, whatever became of them in releases/
"""

import difflib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lilliput.base import __version__
from lilliput.base.errors import RunError, reading
from lilliput.base.files import PARTIAL, hash_of, move, new_folder
from lilliput.base.locked_folder import LockedFolder
from lilliput.base.ownership import check_links, check_ours, inside, remove

FORMAT = 1
RUN_FILE = "run.json"
_ASIDE = f".before{PARTIAL}"
"""Suffix of a part, or of its record, while another one is made."""

Build = Callable[[Path], Any]
IsIntact = Callable[[Path, Any], bool]


def always(folder: Path, outputs: Any) -> bool:
    """The test of a part whose files cannot be lost but with its record."""
    return True


@dataclass(kw_only=True)
class Part:
    """A part of a run."""

    folder: Path
    is_missing: bool
    """True if it has to be made."""
    outputs: Any = None
    """JSON value, recorded with the part."""


class RunFolder(LockedFolder):
    """An open run; a context manager that keeps other processes out.

    A new or empty folder becomes a run when it is entered. One that holds anything else is left as it is.

    Raises:
        InUseError: another process has the run open.
        RunError: the folder cannot be written, is no run and not empty, is of another format, or has symbolic links.
    """

    def check(self) -> None:
        """Refuse a folder that is neither a run nor empty, hidden files aside.

        Raises:
            RunError: it is not.
        """
        if not self.path.is_dir():
            return
        if (self.path / RUN_FILE).is_file():
            self._check_format()
        else:
            self.refuse_others("run", RUN_FILE)
        check_links(self.path)

    def on_open(self) -> None:
        """Mark a new folder as a run before anything else is written into it."""
        if self.read(RUN_FILE) is None:
            self.write_with_checksum(RUN_FILE, {"format": FORMAT, "lilliput": __version__, "machine": None})

    def hint(self, name: str) -> str:
        """Return what to do about a damaged file: removing the record of a part would orphan its folder."""
        if name == RUN_FILE:
            return "put it back from a copy; without it the folder is no run, begin another one with --out"
        if name.startswith("parts/"):
            part = name.removeprefix("parts/").removesuffix(".json").replace(".", "/", 1)
            return f"put it back from a copy, or give the part up: lilliput clean {self.path} --from {part}"
        return "put it back from a copy, or remove it: it is written again"

    @contextmanager
    def part(self, name: str, inputs: Any, is_intact: IsIntact = always) -> Iterator[Part]:
        """Open a part, done with these inputs or to be made inside of the `with` block.

        Args:
            name: also the folder of the part, relative to the run.
            inputs: JSON value that decides the result. A part begun with others is replaced once this one is made; see
                `refuse_change` for parts too dear for that.
            is_intact: given the part's folder and its recorded outputs, whether they are still there; if not, the part
                is to be made again.

        Yields:
            the part. Where it is missing the block makes it in its folder, which holds what an interrupted call left,
            and sets its `outputs`, a JSON value; it is done when the block ends, and as before where that raises.

        Raises:
            RunError: there is something in its place that this run did not write; it stays.
        """
        folder = inside(self.path, name)
        self.restore_previous(name)  # a killed process could not
        outputs = self.outputs(name, inputs, is_intact)
        if outputs is not None:
            yield Part(folder=folder, is_missing=False, outputs=outputs)
            return
        record = self.record(name)
        if folder.exists() and not record:
            raise RunError(
                f"{name} exists, but no record says that this run made it",
                where=str(folder),
                hint=f"put {_record_file(name)} back from a copy, or move {name} out of the run folder",
            )
        begun = {"inputs": hash_of(inputs), "done": False, "from": inputs}
        remove(self.path, name + PARTIAL)
        part = Part(folder=folder, is_missing=True)
        try:
            if record.get("inputs") != begun["inputs"]:
                check_ours(self.path, name)
                self._set_aside(name)
                if not record.get("inputs"):
                    self._drop_previous(name)
            self.write_with_checksum(_record_file(name), begun)
            yield part
        except BaseException:
            self.restore_previous(name)
            raise
        self._drop_previous(name)
        self.write_with_checksum(_record_file(name), begun | {"done": True, "outputs": part.outputs})

    def cached(self, name: str, inputs: Any, build: Build, is_intact: IsIntact = always) -> Any:
        """Return the outputs of a part, which `build` makes in the part's folder if it is missing; see `part`."""
        with self.part(name, inputs, is_intact) as part:
            if part.is_missing:
                part.outputs = build(part.folder)
        return part.outputs

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
                f"{name} was made with other settings: {'; '.join(changed[:4])}",
                where=str(self.path),
                hint=f"to resume, repeat the --set and other options of then, or give the run "
                f"folder alone, as in lilliput publish {self.path}; or start another run with --out; or give this part "
                f"up: lilliput clean {self.path} --from {name}",
            )

    def outputs(self, name: str, inputs: Any, is_intact: IsIntact = always) -> Any | None:
        """The outputs of a part that is done with these inputs and still whole, else None; changes nothing."""
        record = self.record(name)
        if record.get("inputs") != hash_of(inputs) or not record["done"]:
            return None
        with reading(self.path / _record_file(name), self.hint(_record_file(name)), "the file is damaged"):
            return record["outputs"] if is_intact(self.path / name, record["outputs"]) else None

    def record(self, name: str) -> dict[str, Any]:
        """Return what is noted of a part: `inputs` (their hash), `from` (themselves), `done`, `outputs`; empty without
        one.
        """
        with reading(self.path / _record_file(name), self.hint(_record_file(name)), "the file is damaged"):
            record = self.read(_record_file(name)) or {}
            if record and not isinstance(record.get("from", {}), dict):
                raise TypeError("`from` is no object")
            return record if not record else {"inputs": record["inputs"], "done": record["done"]} | record

    def recorded(self, name: str) -> bool:
        """Return whether there is a record of a part, whole or damaged: the run made it, or began to."""
        return (self.path / _record_file(name)).is_file()

    def remove(self, name: str) -> None:
        """Give a part up: its folder and its record, in an order that a kill at any moment cannot confuse."""
        check_ours(self.path, name)
        self.restore_previous(name)
        if not self.recorded(name):
            return
        self.give_up(name)
        remove(self.path, name)
        (self.path / _record_file(name)).unlink()

    def give_up(self, name: str) -> None:
        """Note of a part that it may be dropped, whatever is in its folder by then."""
        self.write_with_checksum(_record_file(name), {"inputs": None, "done": False})

    def take_over(self, name: str, record: dict[str, Any]) -> None:
        """Note of a part that another run made it, whose files are in its folder now."""
        self.write_with_checksum(_record_file(name), record)

    def restore_previous(self, name: str) -> None:
        """Restore what a killed process had set aside of a part, if its record still is: it is better than nothing."""
        folder, record = self.path / name, self.path / _record_file(name)
        if _aside(record).exists() and _aside(folder).exists():
            record.unlink(missing_ok=True)
            remove(self.path, name)
            move(_aside(folder), folder)
        if _aside(record).exists() and not record.exists():
            move(_aside(record), record)
        self._drop_previous(name)

    def _set_aside(self, name: str) -> None:
        """Make room for a new part, the record first: at no moment does it stand beside another one's folder.

        Renaming needs no room, so that a disk that is full can neither stop this nor what undoes it.
        """
        folder, record = self.path / name, self.path / _record_file(name)
        for path in (record, folder):
            if path.exists():
                move(path, _aside(path))

    def _drop_previous(self, name: str) -> None:
        """Its record first: a folder without one is never put back, so that it may be half gone."""
        remove(self.path, f"{_record_file(name)}{_ASIDE}")
        remove(self.path, f"{name}{_ASIDE}")

    def replacing(self, name: str) -> AbstractContextManager[Path]:
        """A new folder in the place of one of the run, `files.new_folder`.

        Raises:
            RunError: what is there was not written by a run.
        """
        check_ours(self.path, name)
        return new_folder(self.path / name)

    def _check_format(self) -> None:
        record = self.read(RUN_FILE)
        if not isinstance(record, dict) or "format" not in record:
            raise RunError(
                f"{RUN_FILE} was not written by Lilliput",
                where=str(self.path),
                hint="give a new or empty folder with --out, or a run to resume",
            )
        if record["format"] != FORMAT:
            raise RunError(
                f"the run has format {record['format']!r:.80}, this version of Lilliput reads {FORMAT}",
                where=str(self.path),
                hint="resume it with the version that started it, or start another with --out",
            )


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Return where two JSON values differ, as texts like `phase.optimizer.lr was 0.01, not 0.02`."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [text for key in keys for text in differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [text for index, (one, other) in pairs for text in differences(one, other, f"{path}.{index}")]
    return [] if old == new else [f"{path} was {_short(old)}, not {_short(new)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 48 else text[:45] + "..."


def _aside(path: Path) -> Path:
    """Return where a part, or its record, waits until another one is whole."""
    return path.with_name(path.name + _ASIDE)


def _record_file(name: str) -> str:
    return f"parts/{name.replace('/', '.')}.json"


def no_run(folder: Path) -> RunError:
    """Return the error for a folder without a `recipe.json`."""
    if not folder.exists():
        near = near_folders(folder)
        hint = f"nearest names: {', '.join(near)}" if near else "`lilliput runs` lists the runs below ./runs"
        return RunError("the folder does not exist", where=str(folder), hint=hint)
    if (folder / "sweep.json").is_file():
        variants = sorted(str(one) for one in folder.iterdir() if (one / "recipe.json").is_file())
        listed = " ".join(f"'{one}'" for one in variants[:2]) or "none is trained yet"
        return RunError(
            "the folder is a sweep, not a run", where=str(folder), hint=f"give one of its variants: {listed}"
        )
    return RunError(
        "the folder is not a run: it has no recipe.json",
        where=str(folder),
        hint="give a folder that `lilliput run` or `lilliput train` made; `lilliput runs` lists them",
    )


def near_folders(folder: Path) -> list[str]:
    """Return folders beside one that is not there, of nearly its name."""
    beside = {one.name: str(one) for one in folder.parent.iterdir() if one.is_dir()} if folder.parent.is_dir() else {}
    return [beside[name] for name in difflib.get_close_matches(folder.name, beside, n=3)]
