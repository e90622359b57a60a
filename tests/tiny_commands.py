"""The command line as people type it, each command a process of its own: its exit code and what it said.

They are forked from a process that has imported the libraries: a command that fails takes 0.2 s so and 3 s otherwise.
"""

import ctypes
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic, sleep
from typing import Any

import tiny

from lilliput.base.files import sha256

LIBRARIES = [
    "pytest",
    "tiny",
    "lilliput.api",
    "lilliput.shrink",
    "lilliput.run.pipeline",
    "lilliput.evals.hf_model",
    "lm_eval.evaluator",
    "lm_eval.tasks",
    "torch._dynamo",
    "transformers.models.qwen3.modeling_qwen3",
]
SECONDS = 90
"""Longer than any command of the tests takes on a loaded machine."""

_forks = get_context("forkserver")
_forks.set_forkserver_preload(LIBRARIES)


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A command that has ended."""

    code: int
    """As a shell has it: 128 and the number of the signal where one ended it."""
    out: str
    err: str
    memory: int
    """Bytes of the process at most; 0 where it was killed."""


class Running:
    """A command that may still run."""

    def __init__(
        self,
        *arguments: object,
        folder: Path,
        most: int | None = None,
        before: Callable[[], None] | None = None,
    ):
        """Begin it in a folder.

        Args:
            arguments: the words of the command.
            folder: where it is begun.
            most: bytes of a file at most; longer ones may not be written.
            before: called in the process first.
        """
        self._said = Path(mkdtemp())
        for name in ("out", "err"):
            (self._said / name).touch()
        words = [str(argument) for argument in arguments]
        self.process = _forks.Process(
            target=_command, args=(words, str(folder), str(self._said), most, before), daemon=True
        )
        self.process.start()

    def said(self) -> str:
        """What it has said so far."""
        return (self._said / "out").read_text(errors="replace")

    def wait_for(self, file: Path, lines: int) -> None:
        """Until it has written so many lines of a file."""
        until = monotonic() + SECONDS
        while not file.exists() or file.read_bytes().count(b"\n") < lines:
            assert self.process.is_alive() and monotonic() < until, self.end()
            sleep(0.005)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def end(self, seconds: float = SECONDS, *, kill: bool = False) -> Finished:
        """What became of it; it has to end within some seconds, or is killed where that is an end, too."""
        self.process.join(seconds)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            code = -signal.SIGKILL if kill else None
        err = (self._said / "err").read_text(errors="replace")
        out = self.said()
        memory = self._said / "memory"
        taken = int(memory.read_text()) if memory.exists() else 0
        shutil.rmtree(self._said)
        assert code is not None, f"still running after {seconds} s: {out} {err}"
        return Finished(code=128 - code if code < 0 else code, out=out, err=err, memory=taken)


def lilliput(*arguments: object, folder: Path, expected: int = 0, **how: Any) -> Finished:
    """Run a command to its end, which must have this exit code."""
    finished = Running(*arguments, folder=folder, **how).end()
    assert finished.code == expected, f"{arguments}: {finished.code}\n{finished.out}{finished.err}"
    return finished


def refused(*arguments: object, folder: Path, says: str = "", where: str = "", **how: Any) -> str:
    """Run a command that must be refused, with an error of three parts and nothing else on stderr; returns that."""
    err = lilliput(*arguments, folder=folder, expected=1, **how).err
    what, rest = err.split("\n  where: ")
    place, hint = rest.split("\n  hint: ")
    assert what.partition(": ")[0].endswith("Error") and "Traceback" not in err and hint.strip(), err
    assert says in what + hint and where in place, err
    return err


def _command(words: list[str], folder: str, said: str, most: int | None, before: Callable[[], None] | None) -> None:
    for handle, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{said}/{name}", os.O_WRONLY | os.O_APPEND), handle)
    if most is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    _give_up_privileges()
    os.chdir(folder)
    os.environ |= {"COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    sys.argv = ["lilliput", *words]
    from lilliput.cli import main

    if before is not None:
        before()
    try:
        main()
    finally:
        if most is None:
            Path(said, "memory").write_text(str(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


def _give_up_privileges() -> None:
    """Even root may then not write into what is read-only (capset, capabilities version 3, every set empty)."""
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None, use_errno=True).capset(header, none) == 0, os.strerror(ctypes.get_errno())


RECIPE = """
import sys
sys.path.insert(0, {tests!r})
from dataclasses import replace
from pathlib import Path
import tiny
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.corpora.files import TextFiles
here = Path({folder!r})
recipe = tiny.recipe(here / "scratch", tiny.GQA_SPEC)
corpora = {{"texts": TextFiles(paths=(str(here / "texts"),)), "chats": ChatFiles(paths=(str(here / "chats"),))}}
recipe = replace(recipe, corpora=corpora, timeline=recipe.timeline[:{entries}])
"""
MACHINE = "from lilliput.train.machine import Machine\n\nmachine = Machine(device='cpu', precision='fp32', threads=1)\n"


def workshop(folder: Path, entries: int = 3) -> Path:
    """A folder with texts in three files, the machine `small.py`, and `mine.py`: the first entries of the tiny one."""
    texts, chats = tiny.write_corpora(folder / "scratch")
    (folder / "texts").mkdir()
    (folder / "chats").mkdir()
    rows = texts.read_text().splitlines(keepends=True)
    for place, name in enumerate("abc"):
        (folder / "texts" / f"{name}.jsonl").write_text("".join(rows[70 * place : 70 * place + 70]))
    (folder / "chats" / "chats.jsonl").write_bytes(chats.read_bytes())
    (folder / "mine.py").write_text(
        RECIPE.format(tests=str(Path(__file__).parent), folder=str(folder), entries=entries)
    )
    (folder / "small.py").write_text(MACHINE)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def trained(run: Path) -> dict[str, str]:
    """The hash of the last weights of each phase."""
    return {path.parents[1].name: sha256(path) for path in run.glob("phases/*/final/weights.safetensors")}
