"""The seam between ranks: who reads which rows of a step, whose gradients and numbers count, and who writes.

Two kinds fit. Data parallel: ranks share each step, wait for one another in it, and have equal weights. Owners of
blocks: each rank takes steps of its own, of the variants it may draw, with its own cursor, loss scale, guard and
checkpoints, and every so often settles what it has with the others.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lilliput.train.trainable import Trainable


class Ranks(Protocol):
    """The processes that train one model, seen from one of them. The first one, of rank 0, makes the release."""

    rank: int
    count: int

    @property
    def is_synchronous(self) -> bool:
        """True if ranks wait for one another within a step, so that none can repeat one, or leave, by itself."""
        ...

    @property
    def writes(self) -> bool:
        """True if this rank writes checkpoints and records."""
        ...

    def folder(self, checkpoints: Path) -> Path:
        """Return where this rank's checkpoints and records are, of a phase whose checkpoints are in a folder."""
        ...

    def variants(self, step: int, count: int) -> list[int]:
        """Return those of an objective's variants that this rank draws from in step `step` (from 0)."""
        ...

    def rows(self, step: int, count: int) -> list[tuple[int, int]]:
        """Return who takes the rows of step `step` (from 0), in their order, as (rank, rows).

        A rank reads all rows that are listed, as its denominator and cursor are of all, and trains on its own.

        Raises:
            MachineError: a rank would have nothing to do.
        """
        ...

    def reduce(self, trainable: Trainable, stage: int, variant: int) -> AbstractContextManager[None]:
        """Return a context around the last backward pass of a step, of a variant of a stage's objective.

        When it ends, the gradients of the parameters that are active in it are those of the whole step.
        """
        ...

    def agree(self, step: int, numbers: dict[str, float]) -> dict[str, float]:
        """Return the numbers of step `step` (from 0) that the guard and loggers see, of shares of this rank.

        Ranks that share a step get the sum of all shares, equal to the bit everywhere; owners get their own.
        """
        ...

    def settle(self, step: int, steps: int, trainable: Trainable) -> None:
        """Exchange weights after `step` of `steps` steps, where they are not equal already.

        Must not wait longer than its own time limit for a rank that is slow or gone, and must be repeatable: a rank
        that is killed resumes before a settling that it took part in.
        """
        ...

    def barrier(self) -> None:
        """Wait until all ranks that share steps are here."""
        ...


class ExchangeSpec(Protocol):
    """An exchange as machine files write it."""

    def resolved(self) -> "ExchangeSpec":
        """Return the same with the number of ranks that are here."""
        ...

    def join(self, device: str) -> AbstractContextManager[Ranks]:
        """Return the ranks, for the length of a `with` block.

        Raises:
            MachineError: they are not here.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Alone:
    """One rank: nothing to exchange."""

    def resolved(self) -> "Alone":
        return self

    @contextmanager
    def join(self, device: str) -> Iterator["OneRank"]:
        yield OneRank()


class OneRank:
    """A rank by itself."""

    rank = 0
    count = 1
    is_synchronous = False
    writes = True

    def folder(self, checkpoints: Path) -> Path:
        return checkpoints

    def variants(self, step: int, count: int) -> list[int]:
        return list(range(count))

    def rows(self, step: int, count: int) -> list[tuple[int, int]]:
        return [(0, count)]

    def reduce(self, trainable: Trainable, stage: int, variant: int) -> AbstractContextManager[None]:
        return nullcontext()

    def agree(self, step: int, numbers: dict[str, float]) -> dict[str, float]:
        return numbers

    def settle(self, step: int, steps: int, trainable: Trainable) -> None: ...

    def barrier(self) -> None: ...
