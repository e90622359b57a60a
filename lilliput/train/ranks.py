"""The seam between workers: who reads which rows of a step, and how their gradients become those of the whole step."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from torch import nn


class Ranks(Protocol):
    """The processes that train one model, seen from one of them. The first one, of rank 0, is the one that writes."""

    rank: int
    count: int

    def wrap(self, objective: nn.Module) -> nn.Module:
        """An objective after whose backward pass gradients are those of all workers; calls under `no_sync` wait."""
        ...

    def sum(self, numbers: dict[str, float]) -> dict[str, float]:
        """The same numbers, added up over all workers: equal to the bit everywhere."""
        ...

    def barrier(self) -> None:
        """Until all workers are here."""
        ...


class ExchangeSpec(Protocol):
    """An exchange as machine files write it."""

    def resolved(self) -> "ExchangeSpec":
        """The same with the number of workers that are here."""
        ...

    def join(self, device: str) -> AbstractContextManager[Ranks]:
        """The workers, for the length of a `with` block.

        Raises:
            MachineError: they are not here.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Alone:
    """One worker: nothing to exchange."""

    def resolved(self) -> "Alone":
        return self

    @contextmanager
    def join(self, device: str) -> Iterator["OneRank"]:
        yield OneRank()


class OneRank:
    """Itself."""

    rank = 0
    count = 1

    def wrap(self, objective: nn.Module) -> nn.Module:
        return objective

    def sum(self, numbers: dict[str, float]) -> dict[str, float]:
        return numbers

    def barrier(self) -> None: ...
