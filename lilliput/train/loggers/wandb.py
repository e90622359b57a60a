"""Weights & Biases: a run a phase, of a project with the recipe's name, below `wandb/` in the run's folder.

Where it sends them, if anywhere, is its own matter: `WANDB_MODE=offline` keeps them here.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from lilliput.base.files import hash_of
from lilliput.train.loggers.logger import RunInfo


class Wandb:
    """Logs to a run of theirs, which drops steps that it has seen before."""

    def __init__(self, run: Any):
        self._run = run

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()


def open_logger(shown: RunInfo) -> Wandb:
    """The same run of theirs each time the phase goes on."""
    return Wandb(
        import_module("wandb").init(
            project=shown.recipe,
            name=shown.name,
            group=shown.run.resolve().name,
            id=hash_of([str(shown.run.resolve()), shown.phase])[:16],
            resume="allow",
            dir=str(shown.run),
        )
    )
