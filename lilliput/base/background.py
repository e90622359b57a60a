"""Long calls of native code, made beside the main thread, which meanwhile can be told to stop.

Python answers a signal between two of its own instructions. A tokenizer that encodes a text for a minute leaves no such
moment to the thread that calls it, but lets go of the interpreter, so that another thread has them all.
"""

import threading
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_MOMENT = 0.2
"""Seconds between two looks for signals, where the system does not wake the main thread up for one."""


class BackgroundCall(threading.Thread, Generic[T]):
    """A call that has begun. Whoever stops waiting for it leaves it behind; it ends with the process, at the latest."""

    def __init__(self, call: Callable[P, T], *arguments: P.args, **named: P.kwargs):
        super().__init__(daemon=True)
        self._call = lambda: call(*arguments, **named)
        self._value: Any = None
        self._error: BaseException | None = None
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        """Make the call, in the thread."""
        try:
            self._value = self._call()
        except BaseException as error:
            self._error = error
        self._over.set()

    @property
    def is_done(self) -> bool:
        """Return whether the call has returned, or raised."""
        return self._over.is_set()

    def result(self) -> T:
        """Return what the call returns, or raises."""
        while not self._over.wait(_MOMENT):
            pass
        if self._error is not None:
            raise self._error
        return self._value


def run_in_background(call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Make a call beside this thread, and wait for what it returns."""
    return BackgroundCall(call, *arguments, **named).result()


def has_unfinished_calls() -> bool:
    """Return whether a call is still running, in the middle of which Python does not end well."""
    return any(isinstance(thread, BackgroundCall) and not thread.is_done for thread in threading.enumerate())
