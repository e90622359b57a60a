"""Seconds and bytes of something that runs on a device."""

import time
from collections.abc import Callable

import torch

ENOUGH = 0.5
"""Seconds in which something is run at least `REPEATS` times; what takes longer is run less."""
REPEATS = 3
PATIENCE = 5.0
"""Seconds after which nothing is run again: a pass over one row takes ten with 138 M parameters on two cores."""


class Timer:
    """Timer of one device, which may still compute when Python continues."""

    def __init__(self, device: torch.device):
        self._device = device

    def seconds(self, run: Callable[[], None]) -> float:
        """Return the seconds of one run."""
        self._wait()
        begun = time.perf_counter()
        run()
        self._wait()
        return time.perf_counter() - begun

    def repeated(self, first: Callable[[], None], run: Callable[[], None]) -> list[float]:
        """Seconds of some runs. The `first` only warms up, unless it takes so long that it has to do."""
        seconds = [self.seconds(first)]
        if seconds[0] >= PATIENCE:
            return seconds
        seconds = [self.seconds(run)]
        while sum(seconds) < (ENOUGH if len(seconds) >= REPEATS else PATIENCE):
            seconds.append(self.seconds(run))
        return seconds

    def allocated(self) -> int | None:
        """Bytes handed out now; None where the allocator does not tell."""
        return torch.cuda.memory_allocated(self._device) if self._device.type == "cuda" else None

    def peak(self) -> int | None:
        """Bytes handed out at most; None where the allocator does not tell."""
        return torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else None

    def _wait(self) -> None:
        """Until the device has done what it was told."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elif self._device.type == "mps":
            torch.mps.synchronize()
