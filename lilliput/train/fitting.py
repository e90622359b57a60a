"""The losses and gradients of a step, in passes that fit into memory.

Alone, a worker tries the step itself: where memory runs out nothing was applied, so that all of it is made again in
micro-batches of half the rows. Several workers wait for one another in the last pass of a step, and one that runs out
of memory there would leave the others waiting. So before the first step of a stage they try passes that exchange
nothing, and agree on what fits everywhere.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lilliput.data.batch import Batch, Cursor
from lilliput.objectives.objective import step_generator
from lilliput.train.batches import BatchLoader, StepBatches
from lilliput.train.forward_backward import Distributed, ForwardBackward, LossParts
from lilliput.train.machine import Machine
from lilliput.train.memory import give_back, ran_out
from lilliput.train.micro_batches import MicroBatches
from lilliput.train.ranks import Ranks
from lilliput.train.state import State

MOMENTS = 2
"""Numbers an optimizer keeps of each weight, at most, from its first step on."""


class StepRunner:
    """Makes the passes of steps."""

    def __init__(
        self,
        passes: ForwardBackward,
        state: State,
        reading: BatchLoader,
        micro_batches: MicroBatches,
        machine: Machine,
        workers: Ranks,
        seed: int,
    ):
        self._passes, self._state, self._reading, self._micro_batches = passes, state, reading, micro_batches
        self._machine, self._workers, self._seed = machine, workers, seed

    def __call__(self, step: int, stage: int, cursor: Cursor) -> tuple[StepBatches, LossParts]:
        """The rows of step `step` (from 0), read from a cursor on, and their losses; gradients are in the parameters.

        Raises:
            MachineError: memory ran out, and micro-batches cannot be smaller.
        """
        if isinstance(self._passes, Distributed) and not self._micro_batches.is_known(step, stage):
            self._agree_on_micro_batch(self._passes, step, stage, cursor)
        while True:
            rows = self._reading.read(step, stage, cursor)
            parts = self._try_step(self._passes, step, stage, rows.batches, rows.denominator)
            if parts is not None:
                self._micro_batches.keep(step, stage)
                return rows, parts
            if self._workers.count > 1:
                raise self._micro_batches.no_room(step, stage)
            self._micro_batches.halve_micro_batch(step, stage)

    def _agree_on_micro_batch(self, passes: Distributed, step: int, stage: int, cursor: Cursor) -> None:
        """Halve, all workers together, until the largest micro-batch fits on each of them."""
        model, optimizer = self._state.model, self._state.optimizer
        weights = sum(parameter.nbytes for parameter in model.parameters())

        def trial(stage: int, batches: Sequence[Batch], charged: float, generator: torch.Generator) -> LossParts:
            room = 0 if optimizer.state else MOMENTS * weights
            held = torch.empty(room, dtype=torch.uint8, device=self._machine.device)
            parts = passes.alone(stage, batches, charged, generator)
            del held
            return parts

        while True:
            rows = self._reading.read(step, stage, cursor)
            largest = max(rows.batches, key=lambda batch: len(batch.tokens))
            # Twice: from the second one on there are gradients, too.
            fits = self._try_step(trial, step, stage, [largest, largest], rows.denominator) is not None
            self._undo()
            if self._workers.sum({"fits": float(fits)})["fits"] == self._workers.count:
                return
            self._micro_batches.halve_micro_batch(step, stage)

    def _try_step(
        self,
        passes: Callable[[int, Sequence[Batch], float, torch.Generator], dict[str, Tensor]],
        step: int,
        stage: int,
        batches: Sequence[Batch],
        denominator: float,
    ) -> LossParts | None:
        """Their losses; None where memory ran out, and nothing of them is left then."""
        generator = step_generator(self._seed, step, torch.device(self._machine.device))
        try:
            return passes(stage, batches, denominator, generator)
        except RuntimeError as error:
            if not ran_out(error):
                raise
        # The error is gone by now, and with it frames that hold what the passes had made.
        self._passes.release_graphs()
        self._undo()
        give_back(self._machine.device)
        return None

    def _undo(self) -> None:
        self._state.model.zero_grad()
        self._state.precision.reset_step()
