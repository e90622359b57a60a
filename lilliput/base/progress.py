"""Progress display of long work: a line that changes in a terminal, elsewhere a line a minute."""

from time import perf_counter
from types import TracebackType

from rich.console import Console

SECONDS = 60.0
"""Between two lines where no terminal shows the one that changes."""


class Progress:
    """Progress of one thing; a context manager.

    Args:
        console: where it is shown.
        name: what it is of, said before every line.
        what: is going on.
    """

    def __init__(self, console: Console, name: str, what: str):
        self._console, self._name = console, name
        self._status = console.status(f"{name}: {what}")
        self._due = perf_counter() + SECONDS

    def __enter__(self) -> "Progress":
        self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()

    def show(self, line: str) -> None:
        """Say how far it is."""
        self._status.update(f"{self._name}: {line}")
        if not self._console.is_terminal and perf_counter() >= self._due:
            self.say(line)
            self._due = perf_counter() + SECONDS

    def say(self, line: str) -> None:
        """Say something that stays."""
        self._console.print(f"{self._name}: {line}", soft_wrap=True)
