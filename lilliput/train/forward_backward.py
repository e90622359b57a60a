"""Forward and backward of a step's micro-batches: launched operation by operation, or replayed as one CUDA graph.

A layer of a small model is a dozen kernels of some microseconds each, and Python needs longer to launch them than a GPU
to run them. A graph launches a whole pass at once, on the same addresses each time: batches are copied to where the
first one lay, and gradients are found where the first ones were.

A step takes as many micro-batches as fit into memory. Alone, a rank tries the step itself: where memory runs out
nothing was applied, so that all of it is made again in micro-batches of half the rows. Several ranks wait for one
another in the last pass of a step, and one that runs out of memory there would leave the others waiting. So before the
first step of a stage they try passes that exchange nothing, and agree on what fits everywhere.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lilliput.data.batch import Batch, Cursor
from lilliput.objectives.objective import Losses, step_generator
from lilliput.train.batches import BatchLoader, StepBatches
from lilliput.train.cuda_graphs import capture
from lilliput.train.machine import Machine
from lilliput.train.memory import give_back, ran_out
from lilliput.train.micro_batches import MicroBatches
from lilliput.train.precision import Precision
from lilliput.train.ranks import Ranks
from lilliput.train.state import State

LossParts = dict[str, Tensor]
"""Detached scalars by term, in nats per target token, of a whole step."""


class ForwardBackward(Protocol):
    """What adds up the gradients of a step."""

    def __call__(
        self, stage: int, batches: Sequence[Batch], denominator: float, generator: torch.Generator
    ) -> LossParts:
        """Add the gradients of all micro-batches to those of the parameters.

        Args:
            stage: whose objective.
            batches: on the CPU.
            denominator: sum of the target weights of the whole step.
            generator: the only source of randomness.

        Returns:
            the losses of the step by term.
        """
        ...

    def release_graphs(self) -> None:
        """Give up what is kept from step to step to be faster: what was recorded, with its memory."""
        ...


def forward_backward_of(
    how: str, objectives: Sequence[nn.Module], precision: Precision, model: nn.Module, workers: Ranks
) -> ForwardBackward:
    """Those that `Machine.compile` names; launched for several workers, and for models that wait for their device."""
    if workers.count > 1:
        return Distributed(objectives, precision, next(model.parameters()).device, workers)
    launched = Eager(objectives, precision, next(model.parameters()).device)
    host_sync = any(getattr(module, "host_sync", False) for module in model.modules())
    return CudaGraph(launched, precision, model) if how == "graphs" and not host_sync else launched


class Eager:
    """Operation by operation, on any device."""

    def __init__(
        self, objectives: Sequence[nn.Module] | Mapping[int, nn.Module], precision: Precision, device: torch.device
    ):
        self._objectives, self._precision, self.device = objectives, precision, device

    def __call__(
        self, stage: int, batches: Sequence[Batch], denominator: float | Tensor, generator: torch.Generator
    ) -> LossParts:
        parts: LossParts = {}
        for batch in batches:
            losses = self.differentiate(stage, batch.to(self.device), denominator, generator)
            parts = _added(parts, losses.terms)
        return parts

    def differentiate(
        self, stage: int, batch: Batch, denominator: float | Tensor, generator: torch.Generator
    ) -> Losses:
        """Forward and backward of one micro-batch, on the device."""
        losses = self.losses(stage, batch, denominator, generator)
        self._precision.backward(losses.loss)
        return losses

    def losses(self, stage: int, batch: Batch, denominator: float | Tensor, generator: torch.Generator) -> Losses:
        """Forward alone."""
        with self._precision.cast():
            return self._objectives[stage](batch, denominator, generator)

    def release_graphs(self) -> None: ...


class Distributed:
    """Those of one of several workers: the last micro-batch of a step, and no other, exchanges gradients."""

    def __init__(self, objectives: Sequence[nn.Module], precision: Precision, device: torch.device, workers: Ranks):
        self._objectives, self._precision, self._device, self._workers = objectives, precision, device, workers
        self._stage: int | None = None

    def __call__(
        self, stage: int, batches: Sequence[Batch], denominator: float, generator: torch.Generator
    ) -> LossParts:
        parts = self.alone(stage, batches[:-1], denominator, generator)
        return _added(parts, self._launched(stage, batches[-1:], denominator, generator))

    def alone(self, stage: int, batches: Sequence[Batch], denominator: float, generator: torch.Generator) -> LossParts:
        """The same, exchanging nothing: no rank waits for another."""
        if stage != self._stage:
            self._stage, self._module = stage, self._workers.wrap(self._objectives[stage])
            self._launched = Eager({stage: self._module}, self._precision, self._device)
        with self._module.no_sync():  # type: ignore[operator]
            return self._launched(stage, batches, denominator, generator)

    def release_graphs(self) -> None: ...


class CudaGraph:
    """As CUDA graphs, from the second step of a kind on: the first one compiles what is to be recorded.

    The first micro-batch of a step makes the gradients, always in the same place, and the others add to them. Steps
    with positions without targets are launched, because how much can be left out is different in each; and so are
    those whose activations are looked at.
    """

    def __init__(self, launched: Eager, precision: Precision, model: nn.Module):
        self._launched, self._precision, self._parameters = launched, precision, list(model.parameters())
        self._seen: set[tuple[int, torch.Size]] = set()
        self.release_graphs()

    def __call__(
        self, stage: int, batches: Sequence[Batch], denominator: float, generator: torch.Generator
    ) -> LossParts:
        kinds = {(stage, batch.tokens.shape) for batch in batches}
        whole = all(bool(batch.weight.amin() > 0) for batch in batches)
        if not whole or self._precision.due or not kinds <= self._seen:
            if not self._precision.due:  # what is looked at runs eagerly: nothing is compiled by it
                self._seen |= kinds
            self._begin(stage)
            # In a tensor here, too: a number would be divided by in fp64, and a continued run has to be equal.
            number = torch.tensor(denominator, dtype=torch.float32, device=self._launched.device)
            return self._launched(stage, batches, number, generator)
        parts: LossParts = {}
        for place, batch in enumerate(batches):
            graph = self._recorded(stage, batch, generator, adds=place > 0)
            parts = _added(parts, graph.replay(batch, denominator))
        return parts

    def _begin(self, stage: int) -> None:
        """Launched steps write to where recorded ones of their stage do: they would hold a second copy otherwise."""
        if stage != self._stage:
            self.release_graphs()
            return
        torch._foreach_zero_([gradient for gradient in self._gradients if gradient is not None])
        self._hand_out()

    def _hand_out(self) -> None:
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient

    def _recorded(self, stage: int, batch: Batch, generator: torch.Generator, *, adds: bool) -> "_Graph":
        kind = (batch.tokens.shape, adds)
        if not adds:
            if stage == self._stage and kind in self._graphs:
                self._hand_out()
            else:
                self.release_graphs()  # other gradients are made now
        if kind not in self._graphs:
            self._graphs[kind] = _Graph(self._launched, stage, batch.to(self._launched.device), generator, self._pool)
            self._stage, self._gradients = stage, [parameter.grad for parameter in self._parameters]
        return self._graphs[kind]

    def release_graphs(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None
        self._stage: int | None = None
        self._gradients: list[Tensor | None] = []
        self._graphs: dict[tuple[torch.Size, bool], _Graph] = {}
        self._pool = torch.cuda.graph_pool_handle()


class _Graph:
    """A recorded pass, and where its inputs and results lie."""

    def __init__(self, launched: Eager, stage: int, batch: Batch, generator: torch.Generator, pool: Any):
        self._batch, self._denominator = batch, torch.ones((), device=batch.tokens.device)
        self._graph, self._parts = capture(
            lambda: launched.differentiate(stage, batch, self._denominator, generator).terms, pool
        )

    def replay(self, batch: Batch, denominator: float) -> LossParts:
        self._batch.tokens.copy_(batch.tokens, non_blocking=True)
        self._batch.weight.copy_(batch.weight, non_blocking=True)
        self._batch.document_ids.copy_(batch.document_ids, non_blocking=True)
        self._denominator.fill_(denominator)
        self._graph.replay()
        return {name: value.clone() for name, value in self._parts.items()}


def _added(parts: LossParts, others: LossParts) -> LossParts:
    return {name: value + parts.get(name, 0.0) for name, value in others.items()}


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

        def trial(stage: int, batches: Sequence[Batch], denominator: float, generator: torch.Generator) -> LossParts:
            room = 0 if optimizer.state else MOMENTS * weights
            held = torch.empty(room, dtype=torch.uint8, device=self._machine.device)
            parts = passes.alone(stage, batches, denominator, generator)
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
