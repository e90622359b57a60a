"""Ranks that train the whole model each by itself, and take an outer step together every so often.

What a rank has changed since the last outer step lies in a file before anybody else has it: a rank that is killed, or
rolls back, behind an outer step takes it again with the same change, and comes to the weights that the others have.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from lilliput.base.files import write_bytes
from lilliput.train.outer_sgd import OuterSGD
from lilliput.train.phase import StepPlan
from lilliput.train.ranks import Ranks, Report, shared_rows
from lilliput.train.store_gather import StoreGather
from lilliput.train.trainable import Trainable

CHANGES = "changes"
"""Folder of a rank's changes, in that of its checkpoints, and the name under which ranks hand them out."""
STANDING = 2
"""Outer steps whose changes stay: a rank has a checkpoint of the last one or the one before, and may resume there."""


class OuterRanks(Ranks):
    """The machines of a run with outer steps, seen from one of them."""

    def __init__(
        self,
        store: StoreGather,
        *,
        every: int = 500,
        lr: float = 0.7,
        momentum: float = 0.9,
        gradient_dtype: torch.dtype | None = None,
    ):
        """See one machine of several, or of one.

        Args:
            store: that links them.
            every: steps between two outer ones.
            lr: of the outer optimizer.
            momentum: of the outer optimizer.
            gradient_dtype: that changes are sent in; None for fp32.
        """
        self.rank, self.count, self._store = store.rank, store.count, store
        self._every, self._lr, self._momentum, self._gradient_dtype = every, lr, momentum, gradient_dtype

    def of_phase(
        self, plan: StepPlan, trainable: Trainable, report: Report, *, folder: Path, ended: bool = False
    ) -> "OuterRanks":
        self._store.of_phase(plan.phase.name, report)
        self._steps, self._folder = outer_steps(plan, self._every), folder / CHANGES
        trained = {name: one for each in trainable.variants for name, one in trainable.active(*each).items()}
        self._optimizer = OuterSGD(trained, self._lr, self._momentum)
        for step in self._taken():
            self._store.stand(self._name(step), self._file(step).read_bytes)
        return self

    def rows(self, step: int, count: int) -> list[tuple[int, int]]:
        return shared_rows(count, self.count)

    def settle(self, step: int, steps: int, trainable: Trainable) -> int:
        if self.count > 1:
            self._store.post(step, steps)
        if step not in self._steps:
            return 0
        own = self._own_change(step)
        self._optimizer.step([load(one) for one in self._store.gather(self._name(step), own)])
        for old in self._taken()[:-STANDING]:
            self._store.drop(f"{self._name(old)}/")
            self._file(old).unlink()
        return step - max((one for one in self._steps if one < step), default=0)

    def is_outer(self, step: int) -> bool:
        return step in self._steps

    def tensors(self) -> dict[str, Tensor]:
        return self._optimizer.tensors()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self._optimizer.load(tensors)

    def gather(self, name: str, own: bytes, *, drops: str | None = None) -> list[bytes]:
        found = self._store.gather(name, own, drops=drops)
        if drops is not None:
            for step in self._taken():
                self._store.drop(f"{self._name(step)}/")
                self._file(step).unlink()
        return found

    def traffic(self) -> dict[str, float]:
        return self._store.traffic()

    def _own_change(self, step: int) -> bytes:
        """Return what this rank gives to an outer step: what others may have already, else its change so far."""
        if self.count == 1:
            return save(self._optimizer.change(self._gradient_dtype))
        file = self._file(step)
        if not file.is_file():
            write_bytes(file, save(self._optimizer.change(self._gradient_dtype)))
            self._store.stand(self._name(step), file.read_bytes)
        return file.read_bytes()

    def _taken(self) -> list[int]:
        """Return the outer steps that there are changes of, in order."""
        return sorted(int(file.stem) for file in self._folder.glob("*.safetensors"))

    def _file(self, step: int) -> Path:
        return self._folder / f"{step}.safetensors"

    def _name(self, step: int) -> str:
        return f"{self._store.phase}/{CHANGES}/{step}"


def outer_steps(plan: StepPlan, every: int) -> frozenset[int]:
    """Return the steps of a phase after which an outer one is taken.

    They are every so many, the last one, and those whose checkpoints outlive the phase: they are of all ranks.
    """
    lasting = {plan.steps, *plan.kept_steps, plan.resumable}
    return frozenset({*range(every, plan.steps, every), *lasting})
