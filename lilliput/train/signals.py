"""Leaving in the middle of a phase: a signal lets the step end and be saved, a second one ends the process.

A queue whose time is up and a machine that shuts down send SIGTERM and wait some seconds; Ctrl-C is SIGINT.
"""

import os
import signal
import threading
from time import monotonic
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class GracefulShutdown:
    """Signal handling for the length of a `with` block; outside the main thread signals keep their meaning."""

    def __init__(self, *, echo: float = 0.0) -> None:
        """Treat a signal within `echo` seconds of the first one as its repetition.

        torchrun passes a Ctrl-C on to workers, which the terminal has told already.
        """
        self._echo, self._when = echo, 0.0
        self._asked: int | None = None
        self._former: dict[int, Any] = {}

    def __enter__(self) -> "GracefulShutdown":
        if threading.current_thread() is threading.main_thread():
            meant = {number: signal.getsignal(number) for number in SIGNALS}
            self._former = {number: one for number, one in meant.items() if one not in (None, signal.SIG_IGN)}
            for number in self._former:
                signal.signal(number, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        while self._former:
            signal.signal(*self._former.popitem())

    @property
    def requested(self) -> bool:
        """Return whether a signal came."""
        return self._asked is not None

    def exit(self) -> None:
        """Do what the signal would have done without this object, or what Ctrl-C does."""
        self.__exit__()
        if self._asked is not None:  # another worker may have been asked
            signal.raise_signal(self._asked)
        raise KeyboardInterrupt

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self._asked, self._when = number, monotonic()
        elif monotonic() - self._when >= self._echo:
            os._exit(128 + number)  # at once: what is half written counts as not written
