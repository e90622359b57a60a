"""TensorBoard: event files below `tensorboard/` in the run's folder, a folder a phase."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from lilliput.train.loggers.logger import RunInfo


class TensorBoard:
    """Writes scalars."""

    def __init__(self, writer: Any):
        self._writer = writer

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def open_logger(shown: RunInfo) -> TensorBoard:
    """Open the logger; what an interrupted run wrote beyond the step that it resumes from is hidden."""
    writer = import_module("torch.utils.tensorboard").SummaryWriter
    return TensorBoard(writer(str(shown.run / "tensorboard" / shown.phase), purge_step=shown.step + 1))
