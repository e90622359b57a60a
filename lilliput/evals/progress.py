"""Progress of an evaluation."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A moment of one task."""

    task: str
    """The name on the card."""
    rows: int
    """Rows of tokens that went through the model; choices of one token share the row of their context."""
    total: int
    """Rows of the whole task."""
    seconds: float
    """Since the task's first row."""

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float:
        """At the rate so far. The longest rows come first, so it is rather too long."""
        return (self.total - self.rows) / self.rate if self.rate > 0 else 0.0

    def __str__(self) -> str:
        left = f"{self.seconds_left:,.0f} s left"
        return f"{self.task}: {self.rows:,} of {self.total:,} rows, {self.rate:,.0f}/s, {left}"


Watcher = Callable[[Progress], None]
"""Called after every forward pass."""
