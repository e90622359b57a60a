"""Sinks: other programs that are shown the numbers of `metrics.jsonl` as they are written, if one asks for it.

None of them is needed, none is imported unless asked for, and none can stop a training: one that fails is left out from
then on. What they were shown can be made again from `metrics.jsonl`, which stays the record.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from lilliput.base.errors import LilliputError
from lilliput.train.metrics_file import HEADLINE
from lilliput.train.samples import SAMPLES

LOGGERS = ("tensorboard", "trackio", "wandb")
"""Names of packages, of extras of Lilliput, and of the modules beside this one."""


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """Description of a phase for loggers."""

    run: Path
    """The run's folder."""
    recipe: str
    phase: str
    """Its folder's name, such as `00-pretrain`."""
    step: int
    """Training begins after it; 0 unless it goes on."""

    @property
    def name(self) -> str:
        """Such as `quickstart/00-pretrain`."""
        return f"{self.run.resolve().name}/{self.phase}"


class Logger(Protocol):
    """One program, for one phase; its module has `open_logger(shown)`."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Take the numbers after step `step` in, by name."""
        ...

    def close(self) -> None:
        """See to it that nothing is lost."""
        ...


def check_loggers(names: Sequence[str]) -> None:
    """Refuse now what could not be opened once training begins.

    Raises:
        LilliputError: there is no such logger, or its package is not installed.
    """
    for name in names:
        if name not in LOGGERS:
            raise LilliputError(f"there is no logger {name!r}", where="--logger", hint=f"one of: {', '.join(LOGGERS)}")
        found = find_spec(name)
        if found is None or found.origin is None:  # a mere folder of that name is no package
            raise LilliputError(
                f"the package {name!r} is not installed",
                where=f"--logger {name}",
                hint=f"pip install {name}, or leave --logger out: report.html needs no package",
            )


class LoggerGroup:
    """Feeds the loggers of one phase."""

    def __init__(self, names: Sequence[str] = (), shown: RunInfo | None = None, say: Callable[[str], None] = print):
        self._shown, self._say = shown, say
        self._loggers: dict[str, Logger] = {}
        for name in names:
            self._try(name, self._open)

    def log(self, line: Mapping[str, Any]) -> None:
        """A line of `metrics.jsonl`."""
        numbers = {name: value for name, value in line.items() if name not in ("step", HEADLINE, "heldout", SAMPLES)}
        held_out = line.get("heldout", {}).items()
        numbers |= {f"heldout/{name}": value for name, value in held_out if value is not None}
        for name in list(self._loggers):
            self._try(name, lambda name: self._loggers[name].log(int(line["step"]), numbers))

    def close(self) -> None:
        """No line comes any more."""
        for name in list(self._loggers):
            self._try(name, lambda name: self._loggers.pop(name).close())

    def _open(self, name: str) -> None:
        self._loggers[name] = import_module(f"lilliput.train.loggers.{name}").open_logger(self._shown)

    def _try(self, name: str, what: Callable[[str], None]) -> None:
        try:
            what(name)
        except Exception as error:  # whatever a program of others does, training goes on
            self._loggers.pop(name, None)
            self._say(f"{name} is left out from here on: {type(error).__name__}: {error}")
