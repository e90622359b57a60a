"""Trackio: a run a phase, of a project with the recipe's name, where trackio keeps its own."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from lilliput.train.loggers.logger import RunInfo


class Trackio:
    """Logs to a run of theirs."""

    def __init__(self, run: Any):
        self._run = run

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()


def open_logger(shown: RunInfo) -> Trackio:
    """The same run of theirs each time the phase goes on."""
    made = import_module("trackio").init(
        project=shown.recipe, name=shown.name.replace("/", "-"), group=shown.run.resolve().name, resume="allow"
    )
    return Trackio(made)
