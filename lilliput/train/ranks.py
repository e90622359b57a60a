"""The seam between ranks: who takes which steps and rows, whose gradients and numbers count, and who writes.

Four kinds fit. Data parallel: ranks share each step, wait for one another in it, and have equal weights. Owners of
blocks: each rank takes the steps of its own blocks and passes over the others, with its own loss scale, guard and
checkpoints; every so often it settles what it has with the others, and at the end of a phase they have one model. Or
all of them take each step, each with a block of its own, and add up gradients of what blocks share. Outer steps: each
rank trains the whole model on its own rows of each step, and every so often their changes are averaged.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from lilliput.base.errors import MachineError
from lilliput.train.grad_clip import l2_norm
from lilliput.train.phase import StepPlan
from lilliput.train.trainable import Trainable

Report = Callable[[str], None]
"""Is called with a line for people."""
FINAL = "final"
"""Before the name of a phase: the name under which ranks gather what they end it with."""
METRICS = "metrics"
"""After the name of a phase: the name under which they gather its metrics, once all of its steps are taken."""


class Ranks(ABC):
    """The processes that train one model, seen from one of them. The first one, of rank 0, makes the release.

    What a method does here is right for a rank that takes every step and has nothing to exchange.
    """

    rank: int
    count: int
    is_synchronous: bool = False
    """True if ranks wait for one another within a step, so that none can repeat one, or leave, by itself."""
    writes: bool = True
    """True if this rank writes checkpoints and records."""

    def folder(self, checkpoints: Path) -> Path:
        """Return where this rank's checkpoints and records are, of a phase whose checkpoints are in a folder."""
        return checkpoints

    def of_phase(
        self, plan: StepPlan, trainable: Trainable, report: Report, *, folder: Path, ended: bool = False
    ) -> "Ranks":
        """Return the ranks as they train a phase.

        Args:
            plan: of the phase.
            trainable: what it trains.
            report: called with one line for each rank that is waited for or out of reach.
            folder: of this rank's checkpoints.
            ended: whether this rank has taken all of its steps.

        Raises:
            MachineError: they cannot train it.
        """
        return self

    def owns(self, stage: int, variant: int) -> bool:
        """Return whether this rank takes the steps of a variant of a stage's objective, and not only passes over them.

        Every step has a variant, drawn from all of them, and at least one rank that takes it.
        """
        return True

    def candidates(self, stage: int, variants: Sequence[int]) -> Sequence[int]:
        """Return the variants, of all those of a stage, that the variant of a step is drawn from on this rank."""
        return variants

    @abstractmethod
    def rows(self, step: int, count: int) -> list[tuple[int, int]]:
        """Return who takes the rows of step `step` (from 0), in their order, as (rank, rows).

        A rank trains on its own, and its cursor moves over all that are listed. Where ranks are synchronous they sum
        gradients, and the denominator is of all rows; elsewhere it is of the rank's own.

        Raises:
            MachineError: a rank would have nothing to do.
        """
        ...

    def reduce(self, trainable: Trainable, stage: int, variant: int) -> AbstractContextManager[None]:
        """Return a context around the last backward pass of a step, of a variant of a stage's objective.

        When it ends, the gradients of the parameters that are active in it are those of the whole step.
        """
        return nullcontext()

    def grad_norm(self, parameters: Sequence[nn.Parameter], norms: Sequence[Tensor]) -> Tensor:
        """Return the l2 norm of the step's gradient, given those of the gradients that this rank has, by parameter."""
        return l2_norm(parameters, norms)

    def agree(self, step: int, numbers: dict[str, float]) -> dict[str, float]:
        """Return the numbers of step `step` (from 0) that the guard and loggers see, of shares of this rank.

        Ranks that share a step get the sum of all shares, equal to the bit everywhere; owners get their own.
        """
        return numbers

    def resume_step(self, steps: Sequence[int]) -> int | None:
        """Return the step that training resumes from, given those that this rank has checkpoints of, in order.

        None where the newest one that is whole is as good as any.
        """
        return None

    def settle(self, step: int, steps: int, trainable: Trainable) -> int:
        """Exchange weights after `step` of `steps` steps, where they are not equal already.

        Called after every step, taken or passed over. Must be repeatable: a rank that is killed resumes before a
        settling that it took part in.

        Returns:
            the steps that an average of the weights takes in now: the one just taken; or none where the weights are
            this rank's alone, and at the next settling all since the last one.
        """
        return 1

    def is_outer(self, step: int) -> bool:
        """Return whether `step` ends with an outer one: it moves all parameters, and a checkpoint of it is due."""
        return False

    def tensors(self) -> dict[str, Tensor]:
        """Return the state of the exchange that a checkpoint keeps; empty if there is none."""
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Resume from that state and the weights that are loaded; begin from the weights if it is empty."""
        return None

    def gather(self, name: str, own: bytes, *, drops: str | None = None) -> list[bytes]:
        """Return what each rank has under a name, by rank, once all have it; waits as long as that takes.

        Ranks that have one run folder have the same: it is handed back.

        Args:
            name: the same on all ranks.
            own: what this rank has.
            drops: the beginning of names that no rank needs any more by then.
        """
        return [own]

    def traffic(self) -> dict[str, float]:
        """Return what to record of a step: `bytes_sent` and `bytes_received` since the last call, if there are any."""
        return {}

    def barrier(self) -> None:
        """Wait until all ranks that share steps are here."""
        return None


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


class OneRank(Ranks):
    """A rank by itself."""

    rank = 0
    count = 1

    def rows(self, step: int, count: int) -> list[tuple[int, int]]:
        return [(0, count)]


def shared_rows(count: int, ranks: int) -> list[tuple[int, int]]:
    """Return who takes the rows of a step that is shared, as `Ranks.rows` does: as many each, the first ones one more.

    Args:
        count: of the step's rows.
        ranks: that share them.

    Raises:
        MachineError: there are fewer rows than ranks.
    """
    if count < ranks:
        raise MachineError(
            f"a step of {count} rows cannot be shared by {ranks} ranks",
            where="the machine's `exchange`",
            hint="start fewer ranks, or give the phase larger batches",
        )
    return [(rank, count // ranks + (rank < count % ranks)) for rank in range(ranks)]
