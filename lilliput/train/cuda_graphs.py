"""CUDA graphs: one wrapper around forward and backward, and one around the optimizer's step.

A layer of a small model is a dozen kernels of some microseconds each, and Python needs longer to launch them than a GPU
to run them. A graph launches a whole pass at once, on the same addresses each time: batches are copied to where the
first one lay, and gradients are found where the first ones were.

The numbers of a step are looked at before it is taken, so a GPU idles from then on until the first kernel of the update
is there. Python needs 1.1 ms to launch PyTorch's fused AdamW for 112 tensors, and 2.3 ms for 219 (SLM-10M and Llama
194 M, one H100, 2026-11-26, `benchmarks/step.py --profile`).
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from lilliput.base.cuda_graph import capture
from lilliput.data.batch import Batch
from lilliput.ops.fused_linear_cross_entropy.compact_targets import keeping_all_positions
from lilliput.train.forward_backward import EagerForwardBackward, ForwardBackward, LossParts, StepInputs, added
from lilliput.train.precision import Precision
from lilliput.train.ranks import Ranks
from lilliput.train.trainable import Trainable


def forward_backward_of(how: str, trainable: Trainable, precision: Precision, ranks: Ranks) -> ForwardBackward:
    """Return the passes that `Machine.compile` names.

    Args:
        how: of `Machine.compile`; "graphs" is eager for several ranks, and for models that wait for the device.
        trainable: the model and the objectives.
        precision: of the passes.
        ranks: that share the step.
    """
    eager = EagerForwardBackward(trainable, precision, ranks)
    host_sync = any(getattr(module, "host_sync", False) for module in trainable.modules())
    captures = how == "graphs" and not host_sync and not ranks.is_synchronous
    return CapturedForwardBackward(eager, trainable, precision) if captures else eager


class CapturedForwardBackward:
    """As CUDA graphs, from the second step of a kind on: the first one compiles what is to be captured.

    Each parameter has one gradient, always in the same place: the first micro-batch of a step makes it, or overwrites
    the one that another variant made, and further micro-batches add to it. Steps with many positions without targets,
    such as those on conversations and on pairs, where more than half have none, run eagerly, because how much can be
    left out is different in each (`benchmarks/tuning_steps.py`); and so do those whose activations are watched.
    """

    FEW = 1 / 40
    """Share of positions without targets up to which a graph computes them in vain. Text that is read in another order
    has one or two in most steps, where a piece of it ends: run eagerly, SLM-10M's step took 49 ms instead of 40
    (131,072 positions, one H200)."""

    def __init__(self, eager: EagerForwardBackward, trainable: Trainable, precision: Precision):
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
        has_few = all(float((batch.weight == 0).float().mean()) <= self.FEW for batch in batches)
        if not has_few or self._precision.due or not kinds <= self._seen:
            if not self._precision.due:  # what is watched runs eagerly: nothing is compiled by it
                self._seen |= kinds
            self._hand_out(inputs)
            if given := self._given(inputs):
                torch._foreach_zero_(given)
            # In a tensor here, too: a number would be divided by in fp64, and a resumed run has to be equal.
            number = torch.tensor(denominator, dtype=torch.float32, device=self._eager.device)
            with keeping_all_positions(has_few):
                return self._eager(inputs, batches, number)
        self._eager.begin(inputs)
        self._hand_out(inputs)
        parts: LossParts = {}
        for index, batch in enumerate(batches):
            graph = self._captured(inputs, batch, adds=index > 0)
            parts = added(parts, graph.replay(batch, denominator))
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

    def __init__(self, eager: EagerForwardBackward, inputs: StepInputs, batch: Batch, zeroed: list[Tensor], pool: Any):
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


class OptimizerStep(Protocol):
    """Moves every parameter that has a gradient, in a step of a variant of the objective."""

    def __call__(self, variant: int) -> object: ...


def optimizer_step_of(how: str, optimizer: torch.optim.Optimizer, ranks: Ranks) -> OptimizerStep:
    """Return the way that `Machine.compile` names; eager for several ranks, and where numbers of it are Python's."""
    capturable = all(group.get("capturable", False) for group in optimizer.param_groups)
    captures = how == "graphs" and capturable and not ranks.is_synchronous
    return CapturedOptimizerStep(optimizer) if captures else EagerOptimizerStep(optimizer)


class EagerOptimizerStep:
    """Operation by operation."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self._optimizer = optimizer

    def __call__(self, variant: int) -> None:
        self._optimizer.step()


class CapturedOptimizerStep:
    """As one CUDA graph a variant, once gradients lie where they lay the last time; eager until then, which makes the
    optimizer's state."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self._optimizer = optimizer
        self._parameters: list[Tensor] = [one for group in optimizer.param_groups for one in group["params"]]
        self._addresses: dict[int, list[int | None]] = {}
        """Addresses of gradients at the last step of each variant: numbers, which keep no memory."""
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def __call__(self, variant: int) -> None:
        addresses = [None if one.grad is None else one.grad.data_ptr() for one in self._parameters]
        if addresses != self._addresses.get(variant):
            self._graphs.pop(variant, None)
            self._addresses[variant] = addresses
            self._optimizer.step()
            return
        if variant not in self._graphs:
            self._graphs[variant], _ = capture(self._optimizer.step)
        self._graphs[variant].replay()
