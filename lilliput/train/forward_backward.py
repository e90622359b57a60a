"""Forward and backward of a step's micro-batches: launched operation by operation, or replayed as one CUDA graph.

A layer of a small model is a dozen kernels of some microseconds each, and Python needs longer to launch them than a GPU
to run them. A graph launches a whole pass at once, on the same addresses each time: batches are copied to where the
first one lay, and gradients are found where the first ones were.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lilliput.data.batch import Batch
from lilliput.objectives.objective import Losses
from lilliput.train.cuda_graphs import capture
from lilliput.train.precision import Precision
from lilliput.train.ranks import Ranks

LossParts = dict[str, Tensor]
"""Detached scalars by term, in nats a charged token, of a whole step."""


class ForwardBackward(Protocol):
    """What adds up the gradients of a step."""

    def __call__(
        self, stage: int, batches: Sequence[Batch], denominator: float, generator: torch.Generator
    ) -> LossParts:
        """Add the gradients of all micro-batches to those of the parameters.

        Args:
            stage: whose objective.
            batches: on the CPU.
            charged: sum of the target weights of the whole step.
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
    with positions that are not charged are launched, because how much can be left out is different in each; and so are
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
        self._batch, self._charged = batch, torch.ones((), device=batch.tokens.device)
        self._graph, self._parts = capture(
            lambda: launched.differentiate(stage, batch, self._charged, generator).terms, pool
        )

    def replay(self, batch: Batch, denominator: float) -> LossParts:
        self._batch.tokens.copy_(batch.tokens, non_blocking=True)
        self._batch.weight.copy_(batch.weight, non_blocking=True)
        self._batch.document_ids.copy_(batch.document_ids, non_blocking=True)
        self._charged.fill_(denominator)
        self._graph.replay()
        return {name: value.clone() for name, value in self._parts.items()}


def _added(parts: LossParts, others: LossParts) -> LossParts:
    return {name: value + parts.get(name, 0.0) for name, value in others.items()}
