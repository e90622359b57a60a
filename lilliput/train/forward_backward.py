"""Forward and backward of a step's micro-batches: launched operation by operation, or replayed as one CUDA graph.

A layer of a small model is a dozen kernels of some microseconds each, and Python needs longer to launch them than a GPU
to run them. A graph launches a whole pass at once, on the same addresses each time: batches are copied to where the
first one lay, and gradients are found where the first ones were.

A step takes as many micro-batches as fit into memory. Alone, a rank tries the step itself: where memory runs out
nothing was applied, so that all of it is made again in micro-batches of half the rows. Several ranks wait for one
another in the last pass of a step, and one that runs out of memory there would leave the others waiting. So before the
first step of a stage they try passes that exchange nothing, and agree on what fits everywhere.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from lilliput.data.batch import Batch, Cursor
from lilliput.objectives.noise import Noise
from lilliput.objectives.objective import Losses
from lilliput.train.batches import BatchLoader, StepBatches
from lilliput.train.cuda_graphs import capture
from lilliput.train.machine import Machine
from lilliput.train.memory import give_back, ran_out
from lilliput.train.micro_batches import MicroBatches
from lilliput.train.precision import Precision
from lilliput.train.ranks import Ranks
from lilliput.train.state import State
from lilliput.train.trainable import Trainable

LossParts = dict[str, Tensor]
"""Detached scalars by term of a whole step."""


class StepInputs(NamedTuple):
    """What decides a step besides weights and rows."""

    step: int
    """From 0."""
    stage: int
    """Whose objective."""
    variant: int
    """Of the objective."""
    progress: float
    """Fraction of the phase's steps that are done."""
    seed: int
    """Of the phase; with the step it decides the noise."""


class ForwardBackward(Protocol):
    """Adds up the gradients of a step."""

    def __call__(
        self, inputs: StepInputs, batches: Sequence[Batch], denominator: float, *, reduces: bool = True
    ) -> LossParts:
        """Add the gradients of all micro-batches to those of the parameters.

        Args:
            inputs: of the step.
            batches: micro-batches of this rank, on the CPU.
            denominator: of the whole step.
            reduces: whether gradients become those of all ranks with the last micro-batch.

        Returns:
            the losses of the step by term.
        """
        ...

    def release_graphs(self) -> None:
        """Release captured graphs and their memory."""
        ...


def forward_backward_of(how: str, trainable: Trainable, precision: Precision, ranks: Ranks) -> ForwardBackward:
    """Return the way that `Machine.compile` names; eager for several ranks, and for models that wait for the device."""
    eager = Eager(trainable, precision, ranks)
    host_sync = any(getattr(module, "host_sync", False) for module in trainable.modules())
    captures = how == "graphs" and not host_sync and not ranks.is_synchronous
    return CudaGraph(eager, trainable, precision) if captures else eager


class Eager:
    """Operation by operation, on any device, with any ranks."""

    def __init__(self, trainable: Trainable, precision: Precision, ranks: Ranks):
        self._trainable, self._precision, self._ranks = trainable, precision, ranks
        self.device = next(trainable.parameters()).device
        self._noise, self._progress = Noise(self.device), torch.zeros((), device=self.device)

    def begin(self, inputs: StepInputs) -> None:
        """Put on the device what changes from step to step, where eager and captured passes read it."""
        self._noise.begin_step(inputs.seed, inputs.step)
        self._progress.fill_(inputs.progress)

    def __call__(
        self, inputs: StepInputs, batches: Sequence[Batch], denominator: float | Tensor, *, reduces: bool = True
    ) -> LossParts:
        self.begin(inputs)
        parts: LossParts = {}
        for number, batch in enumerate(batches, 1):
            is_last = number == len(batches)
            with self._reducing(inputs) if reduces and is_last else nullcontext():
                losses = self.differentiate(inputs, batch.to(self.device), denominator)
            parts = _added(parts, losses.terms)
        return parts

    def differentiate(self, inputs: StepInputs, batch: Batch, denominator: float | Tensor) -> Losses:
        """Run forward and backward of one micro-batch, on the device."""
        losses = self.losses(inputs, batch, denominator)
        self._precision.scale(losses.loss).backward()
        return losses

    def losses(self, inputs: StepInputs, batch: Batch, denominator: float | Tensor) -> Losses:
        """Run forward alone."""
        objective = self._trainable.objective(inputs.stage)
        with self._precision.cast():
            return objective(batch, denominator, inputs.variant, self._progress, self._noise)

    def _reducing(self, inputs: StepInputs) -> AbstractContextManager[None]:
        return self._ranks.reduce(self._trainable, inputs.stage, inputs.variant)

    def release_graphs(self) -> None: ...


class CudaGraph:
    """As CUDA graphs, from the second step of a kind on: the first one compiles what is to be captured.

    Each parameter has one gradient, always in the same place: the first micro-batch of a step makes it, or overwrites
    the one that another variant made, and further micro-batches add to it. Steps with positions without targets run
    eagerly, because how much can be left out is different in each; and so do those whose activations are watched.
    """

    def __init__(self, eager: Eager, trainable: Trainable, precision: Precision):
        self._eager, self._trainable, self._precision = eager, trainable, precision
        self._seen: set[tuple[Any, ...]] = set()
        self.release_graphs()

    def __call__(
        self, inputs: StepInputs, batches: Sequence[Batch], denominator: float, *, reduces: bool = True
    ) -> LossParts:
        if inputs.stage != self._stage:
            self.release_graphs()
            self._stage = inputs.stage
        kinds = {(inputs.stage, inputs.variant, batch.shapes) for batch in batches}
        all_targets = all(bool(batch.weight.amin() > 0) for batch in batches)
        if not all_targets or self._precision.due or not kinds <= self._seen:
            if not self._precision.due:  # what is watched runs eagerly: nothing is compiled by it
                self._seen |= kinds
            self._hand_out(inputs)
            if given := self._given(inputs):
                torch._foreach_zero_(given)
            # In a tensor here, too: a number would be divided by in fp64, and a resumed run has to be equal.
            number = torch.tensor(denominator, dtype=torch.float32, device=self._eager.device)
            return self._eager(inputs, batches, number)
        self._eager.begin(inputs)
        self._hand_out(inputs)
        parts: LossParts = {}
        for index, batch in enumerate(batches):
            graph = self._captured(inputs, batch, adds=index > 0)
            parts = _added(parts, graph.replay(batch, denominator))
        return parts

    def _hand_out(self, inputs: StepInputs) -> None:
        """Give parameters that are active in a step the gradients they had, if they had any, and none to others."""
        active = self._trainable.active(inputs.stage, inputs.variant)
        for name, parameter in self._trainable.named_parameters():
            parameter.grad = self._gradients.get(name) if name in active else None

    def _captured(self, inputs: StepInputs, batch: Batch, *, adds: bool) -> "_Graph":
        kind = (inputs.variant, batch.shapes, adds)
        if kind not in self._graphs:
            here = batch.to(self._eager.device)
            self._graphs[kind] = _Graph(self._eager, inputs, here, [] if adds else self._given(inputs), self._pool)
            for name, parameter in self._trainable.active(inputs.stage, inputs.variant).items():
                if parameter.grad is not None:
                    self._gradients[name] = parameter.grad
        return self._graphs[kind]

    def _given(self, inputs: StepInputs) -> list[Tensor]:
        """Gradients that exist before the first micro-batch of a step, which has to begin by zeroing them."""
        names = self._trainable.active(inputs.stage, inputs.variant)
        return [self._gradients[name] for name in names if name in self._gradients]

    def release_graphs(self) -> None:
        for parameter in self._trainable.parameters():
            parameter.grad = None
        self._stage: int | None = None
        self._gradients: dict[str, Tensor] = {}
        self._graphs: dict[tuple[Any, ...], _Graph] = {}
        self._pool = torch.cuda.graph_pool_handle()


class _Graph:
    """A captured pass, and where its inputs and results lie."""

    def __init__(self, eager: Eager, inputs: StepInputs, batch: Batch, zeroed: list[Tensor], pool: Any):
        self._batch, self._denominator = batch, torch.ones((), device=batch.tokens.device)

        def run() -> LossParts:
            if zeroed:
                torch._foreach_zero_(zeroed)
            return eager.differentiate(inputs, batch, self._denominator).terms

        self._graph, self._parts = capture(run, pool)

    def replay(self, batch: Batch, denominator: float) -> LossParts:
        self._batch.copy_(batch)
        self._denominator.fill_(denominator)
        self._graph.replay()
        return {name: value.clone() for name, value in self._parts.items()}


def _added(parts: LossParts, others: LossParts) -> LossParts:
    return {name: value + parts.get(name, 0.0) for name, value in others.items()}


MOMENTS = 2
"""Numbers an optimizer keeps of each weight, at most, from its first step on."""


class StepRunner:
    """Runs forward and backward for one step, halving the micro-batch where memory runs out."""

    def __init__(
        self,
        forward_backward: ForwardBackward,
        state: State,
        loader: BatchLoader,
        micro_batches: MicroBatches,
        machine: Machine,
        ranks: Ranks,
    ):
        self._forward_backward, self._state, self._loader = forward_backward, state, loader
        self._micro_batches, self._machine, self._ranks = micro_batches, machine, ranks
        self._buffers: dict[str, Tensor] = {}
        """Of objectives, as they were before the step."""

    def __call__(self, inputs: StepInputs, cursor: Cursor) -> tuple[StepBatches, LossParts]:
        """Return the rows of a step, read from a cursor on, and their losses; gradients are in the parameters.

        Raises:
            MachineError: memory ran out, and micro-batches cannot be smaller.
        """
        step, stage = inputs.step, inputs.stage
        self._buffers = {name: one.clone() for name, one in self._state.trainable.owned_buffers().items()}
        if self._ranks.is_synchronous and not self._micro_batches.is_known(step, stage):
            self._agree_on_micro_batch(inputs, cursor)
        while True:
            rows, parts = self._loader.read(step, stage, cursor), None
            try:
                parts = self._forward_backward(inputs, rows.batches, rows.denominator)
            except RuntimeError as error:
                if not ran_out(error):
                    raise
            if parts is not None:
                self._micro_batches.keep(step, stage)
                self._state.trainable.keep_active(stage, inputs.variant)
                return rows, parts
            self._recover()
            if self._ranks.is_synchronous:
                raise self._micro_batches.no_room(step, stage)
            self._micro_batches.halve_micro_batch(step, stage)

    def _agree_on_micro_batch(self, inputs: StepInputs, cursor: Cursor) -> None:
        """Halve, all ranks together, until the largest micro-batch fits on each of them."""
        step, stage = inputs.step, inputs.stage
        weights = sum(parameter.nbytes for parameter in self._state.trainable.parameters())
        while True:
            rows = self._loader.read(step, stage, cursor)
            largest = max(rows.batches, key=lambda batch: len(batch.tokens))
            fits, held = False, None
            try:
                room = 0 if self._state.optimizer.state else MOMENTS * weights
                held = torch.empty(room, dtype=torch.uint8, device=self._machine.device)
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
        """Leave nothing of passes that ran out of memory; their error is gone by now, and frames that held tensors."""
        self._forward_backward.release_graphs()
        self._undo()
        give_back(self._machine.device)

    def _undo(self) -> None:
        self._state.trainable.zero_grad()
        self._state.precision.reset_step()
        for name, one in self._state.trainable.owned_buffers().items():
            one.copy_(self._buffers[name])
