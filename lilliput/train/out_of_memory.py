"""A step that runs out of memory takes its forward and backward passes again, in micro-batches of half the rows.

Nothing was applied yet, so the step stays the same: the same rows in the same order, the same randomness. A single rank
tries the step itself. Ranks that share a step wait for one another in its last pass, where one that ran out of memory
would leave the others waiting. So before the first step of a stage they try passes that exchange nothing, and agree on
micro-batches that fit on all of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lilliput.data.batch import Cursor
from lilliput.train.batches import BatchLoader
from lilliput.train.forward_backward import ForwardBackward, StepInputs
from lilliput.train.memory import give_back, ran_out
from lilliput.train.micro_batches import MicroBatches
from lilliput.train.precision import Precision
from lilliput.train.ranks import Ranks
from lilliput.train.trainable import Trainable

MOMENTS = 2
"""Numbers an optimizer keeps of each weight, at most, from its first step on."""


class OutOfMemoryRetry:
    """Finds micro-batches that fit, for the steps of one phase."""

    def __init__(
        self,
        trainable: Trainable,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        forward_backward: ForwardBackward,
        loader: BatchLoader,
        micro_batches: MicroBatches,
        ranks: Ranks,
    ):
        self._trainable, self._optimizer, self._precision = trainable, optimizer, precision
        self._forward_backward, self._loader = forward_backward, loader
        self._micro_batches, self._ranks = micro_batches, ranks
        self._device = next(trainable.parameters()).device
        self._buffers: dict[str, Tensor] = {}
        """Copies of the objectives' buffers, from before the step."""
        self._has_run_out = False

    @contextmanager
    def attempt(self, inputs: StepInputs, cursor: Cursor) -> Iterator[None]:
        """Return a context for the passes of a step, which read its rows from a cursor on.

        Where memory runs out the block is left without an error. Entered again, the context undoes its traces, by then
        the error and the frames that held tensors are gone, and halves the micro-batch.

        Raises:
            MachineError: memory ran out, and micro-batches cannot be smaller.
        """
        step, stage = inputs.step, inputs.stage
        if self._has_run_out:
            self._has_run_out = False
            self._recover()
            if self._ranks.is_synchronous:
                raise self._micro_batches.no_room(step, stage)
            self._micro_batches.halve_micro_batch(step, stage)
        else:
            self._buffers = {name: one.clone() for name, one in self._trainable.owned_buffers().items()}
            if self._ranks.is_synchronous and not self._micro_batches.is_known(step, stage):
                self._agree_on_micro_batch(inputs, cursor)
        try:
            yield
        except RuntimeError as error:
            if not ran_out(error):
                raise
            self._has_run_out = True
            return
        self._micro_batches.keep(step, stage)

    def _agree_on_micro_batch(self, inputs: StepInputs, cursor: Cursor) -> None:
        """Halve, all ranks together, until the largest micro-batch fits on each of them."""
        step, stage = inputs.step, inputs.stage
        weights = sum(parameter.nbytes for parameter in self._trainable.parameters())
        while True:
            rows = self._loader.read(step, stage, cursor)
            largest = max(rows.batches, key=lambda batch: len(batch.tokens))
            fits, held = False, None
            try:
                room = 0 if self._optimizer.state else MOMENTS * weights
                held = torch.empty(room, dtype=torch.uint8, device=self._device)
                # Twice: from the second one on there are gradients, too.
                self._forward_backward(inputs, [largest, largest], rows.denominator, reduces=False)
                fits = True
            except RuntimeError as error:
                if not ran_out(error):
                    raise
            del held
            if fits:
                self._undo()
            else:
                self._recover()
            if self._ranks.agree(step, {"fits": float(fits)})["fits"] == self._ranks.count:
                return
            self._micro_batches.halve_micro_batch(step, stage)

    def _recover(self) -> None:
        """Leave nothing of passes that ran out of memory."""
        self._forward_backward.release_graphs()
        self._undo()
        give_back(str(self._device))

    def _undo(self) -> None:
        self._trainable.zero_grad()
        self._precision.reset_step()
        for name, one in self._trainable.owned_buffers().items():
            one.copy_(self._buffers[name])
