"""Forward and backward passes of a step: its micro-batches one by one, their gradients added up."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lilliput.data.batch import Batch
from lilliput.objectives.noise import Noise
from lilliput.objectives.objective import Losses
from lilliput.train.precision import Precision
from lilliput.train.ranks import Ranks
from lilliput.train.trainable import Trainable

LossParts = dict[str, Tensor]
"""Detached scalars of a whole step, by term."""


class StepInputs(NamedTuple):
    """Everything that decides a step besides weights and rows."""

    step: int
    """From 0."""
    stage: int
    """The phase's stage, which has the objective."""
    variant: int
    """The objective's variant."""
    progress: float
    """Fraction of the phase's steps that are done."""
    seed: int
    """The phase's seed; with the step it decides the noise."""


class ForwardBackward(Protocol):
    """Adds up the gradients of a step."""

    def __call__(
        self, inputs: StepInputs, batches: Sequence[Batch], denominator: float, *, reduces: bool = True
    ) -> LossParts:
        """Add the gradients of all micro-batches to the parameters' `grad`.

        Args:
            inputs: of the step.
            batches: micro-batches of this rank, on the CPU.
            denominator: of the whole step.
            reduces: whether the last micro-batch also reduces gradients over the ranks.

        Returns:
            the losses of the step by term.
        """
        ...

    def release_graphs(self) -> None:
        """Release captured graphs and their memory."""
        ...


class EagerForwardBackward:
    """Passes run eagerly, on any device, with any ranks."""

    def __init__(self, trainable: Trainable, precision: Precision, ranks: Ranks):
        self._trainable, self._precision, self._ranks = trainable, precision, ranks
        self.device = next(trainable.parameters()).device
        self._noise, self._progress = Noise(self.device), torch.zeros((), device=self.device)

    def begin(self, inputs: StepInputs) -> None:
        """Put what changes from step to step on the device, where eager and captured passes read it."""
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
            parts = added(parts, losses.terms)
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


def added(parts: LossParts, others: LossParts) -> LossParts:
    """Return the sums of two micro-batches' losses, by term."""
    return {name: value + parts.get(name, 0.0) for name, value in others.items()}
