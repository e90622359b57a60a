"""Durations with their unit in the type: `Tokens(25e9)`, `Steps(1_000)`, `Share(0.15)`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tokens:
    """A number of text tokens."""

    count: float

    def __int__(self) -> int:
        return int(self.count)


@dataclass(frozen=True)
class Steps:
    """A number of optimizer steps."""

    count: int

    def of(self, steps: int) -> int:
        """This duration in steps, within a phase of `steps` steps."""
        return min(self.count, steps)


@dataclass(frozen=True)
class Share:
    """A fraction of a phase's steps, in [0, 1]."""

    fraction: float

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise ValueError(f"a share must be in [0, 1], not {self.fraction}")

    def of(self, steps: int) -> int:
        """This duration in steps, within a phase of `steps` steps."""
        return int(self.fraction * steps)


Duration = Steps | Share
