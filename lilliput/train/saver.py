"""Writing checkpoints beside the training: it waits for a copy to the host's memory, never for a disk."""

import threading
from pathlib import Path

from torch import Tensor

from lilliput.train.checkpoint import Checkpoint, save


class AsyncCheckpointWriter:
    """Writes one checkpoint at a time; a context manager that ends when the last one is written.

    A kill while one is written leaves the one before it. What goes wrong on the disk is raised by the next call.
    """

    def __init__(self, folder: Path, *, writes: bool = True):
        """Into a folder; one that does not write does nothing, beside a worker that does."""
        self._folder, self._writes = folder, writes
        self._writing: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> "AsyncCheckpointWriter":
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:
            self.wait()
        elif self._writing is not None:
            self._writing.join()  # the error that is on its way tells more than another one

    def save(self, checkpoint: Checkpoint, folder: Path | None = None) -> None:
        """Copy this checkpoint and begin to write it, once the one before it is written.

        Args:
            checkpoint: what to save.
            folder: where, beside the others; None among them.

        Raises:
            RunError, OSError: that one could not be written.
        """
        if not self._writes:
            return
        self.wait()
        tensors = {
            kind: {name: _on_host(value) for name, value in its.items()} for kind, its in checkpoint.tensors.items()
        }
        copied = Checkpoint(progress=checkpoint.progress, tensors=tensors)
        # A daemon: a process that is told twice to leave does not wait for it.
        self._writing = threading.Thread(
            target=self._write, args=(folder or self._folder, copied), name="checkpoint", daemon=True
        )
        self._writing.start()

    def check(self) -> None:
        """Raise what went wrong, if the disk has said so by now; waits for nothing."""
        if self._writing is not None and not self._writing.is_alive():
            self.wait()

    def wait(self) -> None:
        """Until everything is on the disk.

        Raises:
            RunError, OSError: it cannot be written.
        """
        if self._writing is not None:
            self._writing.join()
        self._writing, error, self._error = None, self._error, None
        if error is not None:
            raise error

    def _write(self, folder: Path, checkpoint: Checkpoint) -> None:
        try:
            save(folder, checkpoint)
        except BaseException as error:
            self._error = error


def _on_host(value: Tensor) -> Tensor:
    return value.detach().to("cpu", copy=True)
