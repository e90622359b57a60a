"""Exponential moving average of the weights, in fp32 (half precision would lose updates of one part in a thousand)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Protocol

import torch
from torch import Tensor, nn

from lilliput.base.spec import check_range
from lilliput.model import copy_weights


class EmaSpec(Protocol):
    """An average as recipes write it."""

    def build(self, model: nn.Module) -> "Average | NoAverage":
        """The average, beginning at the model's weights."""
        ...


@dataclass(frozen=True, kw_only=True)
class Ema:
    """average <- b average + (1 - b) weights, b = min(decay, (1 + t) / (10 + t)) after the t-th step."""

    decay: float = 0.999

    def __post_init__(self) -> None:
        check_range("Ema", 0, 1, decay=self.decay)

    def build(self, model: nn.Module) -> "Average":
        return Average(model, self.decay)


@dataclass(frozen=True, kw_only=True)
class NoEma:
    """The average is the weights themselves."""

    def build(self, model: nn.Module) -> "NoAverage":
        return NoAverage()


class Average:
    """Running fp32 copies of every parameter, by name."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.tensors = {name: value.detach().float().clone() for name, value in model.named_parameters()}

    def update(self, moved: Mapping[str, Tensor], step: int, steps: int = 1) -> None:
        """Take in the weights that step `step` (from 1) has moved, by name, as those of the last `steps` steps."""
        decay = prod(min(self.decay, (1 + one) / (10 + one)) for one in range(step - steps + 1, step + 1))
        live = [value.detach().float() for value in moved.values()]
        torch._foreach_lerp_([self.tensors[name] for name in moved], live, 1 - decay)

    @contextmanager
    def swapped_in(self, model: nn.Module) -> Iterator[None]:
        """The model with averaged weights for the length of a `with` block."""
        live = {name: value.detach().clone() for name, value in model.named_parameters()}
        copy_weights(model, self.tensors)
        try:
            yield
        finally:
            copy_weights(model, live)


class NoAverage:
    """Does nothing, where no average is wanted."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def update(self, moved: Mapping[str, Tensor], step: int, steps: int = 1) -> None: ...

    @contextmanager
    def swapped_in(self, model: nn.Module) -> Iterator[None]:
        yield
