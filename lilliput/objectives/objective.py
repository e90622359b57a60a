"""The seam between a batch and its loss.

A recipe writes an `Objective`; a phase builds it once, into an `ObjectiveModule` around the model. That module may own
parameters, which are trained, averaged, clipped and saved like the model's, and a step of it may be one of several
programs ("variants"), each of which trains some of the parameters.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from lilliput.base.files import seed_of
from lilliput.data.batch import Batch
from lilliput.model import LanguageModel
from lilliput.objectives.noise import Noise

CROSS_ENTROPY = "cross_entropy"
"""The headline of language modeling, in nats per target token: bits per byte of text follow from it alone."""


class Losses(NamedTuple):
    """The losses of one micro-batch, as shares of the whole step: micro-batches and ranks add up."""

    loss: Tensor
    """Scalar to differentiate."""
    terms: dict[str, Tensor]
    """Detached scalars by term, before each term's weight; the objective's headline is one of them."""


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A limit of one of the recorded terms, whose mean over the last steps should not lie beyond it."""

    number: str
    """Name of the term."""
    says: str
    """Line for people where it does; `{amount}` is by how much the mean differs from 0."""
    below: float | None = None
    """The limit that it should not fall under."""
    above: float | None = None
    """The limit that it should not rise over."""


class AlarmingObjective(Protocol):
    """An objective that watches some of its terms: an optional capability."""

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """The limits."""
        ...


class Objective(Protocol):
    """An objective as recipes write it: a frozen dataclass."""

    def row_length(self, length: int) -> int:
        """Tokens that a row of `length` positions takes from the data."""
        ...

    @property
    def tokens_per_position(self) -> int:
        """Text tokens one position consumes."""
        ...

    @property
    def headline(self) -> str:
        """The term that the guard, loggers, report, comparison and card follow."""
        ...

    def denominator(self, batch: Batch) -> float:
        """Return what a batch on the CPU adds to a step's denominator: its targets' weight, its pairs, ..."""
        ...

    def build(self, model: LanguageModel, parts: "Parts") -> nn.Module:
        """Return an `ObjectiveModule` around the model.

        Called once a phase, on the weights that the phase begins with, so that a copy of the model is a copy of those.
        `parts(spec)` builds what equal specs of the phase share, such as a route.
        """
        ...


class ObjectiveModule(Protocol):
    """An objective at work: an `nn.Module`. Its parameters that require gradients and are not the model's are its own.

    Its persistent buffers and its own parameters are saved in checkpoints; what it keeps elsewhere must follow from the
    weights that the phase begins with.
    """

    @property
    def variants(self) -> int:
        """Programs that a step can be, of which one is drawn for each: 1, or the number of blocks, say."""
        ...

    def active(self, variant: int) -> Iterable[nn.Parameter]:
        """Return the parameters that a variant trains; no other is clipped, decayed, moved or averaged in its steps."""
        ...

    def __call__(
        self, batch: Batch, denominator: float | Tensor, variant: int, progress: Tensor, noise: Noise
    ) -> Losses:
        """Return the losses of one micro-batch.

        Args:
            batch: on the model's device.
            denominator: of the whole step (all micro-batches, all ranks), so that every target counts the same wherever
                it lies; a number, or one in a tensor.
            variant: below `variants`.
            progress: scalar on the device, the fraction of the phase's steps that are done.
            noise: the only source of randomness.
        """
        ...

    def evaluate(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Return the headline summed over the held-out targets of a batch, and their weight.

        None where a partly trained model has no such number, which is then shown as not defined.
        """
        ...


class PartSpec(Protocol):
    """A spec that builds a module which objectives of one phase may share."""

    def build(self, model: LanguageModel, parts: "Parts") -> nn.Module: ...


class Parts:
    """Builds the modules of a phase's objectives, one for equal specs: 4 -> 2 -> 1 bags share one route's network."""

    def __init__(self, model: LanguageModel, seed: int):
        """Around a model with the weights that the phase begins with.

        Args:
            model: on its device.
            seed: of the phase; first weights of PyTorch's layers are a function of it and of the order of building.
        """
        self._model, self._seed = model, seed
        self._built: list[tuple[Any, nn.Module]] = []

    def __call__(self, spec: PartSpec) -> nn.Module:
        """Return the module of a spec, on the device of the model."""
        for known, module in self._built:
            if known == spec:
                return module
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(f"{self._seed}/objective/{len(self._built)}"))
            module = spec.build(self._model, self).to(next(self._model.parameters()).device)
        self._built.append((spec, module))
        return module


def build_objectives(objectives: Iterable[Objective], model: LanguageModel, seed: int) -> list[nn.Module]:
    """Return the module of each objective of a phase, in order; equal ones are one module.

    Args:
        objectives: of the stages.
        model: on its device, with the weights that the phase begins with.
        seed: of the phase.
    """
    parts = Parts(model, seed)
    return [parts(objective) for objective in objectives]
