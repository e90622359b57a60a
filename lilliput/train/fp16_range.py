"""Headroom of a model's activations below the largest number of fp16."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

LARGEST = 65_504.0
"""The largest number of fp16."""


class ActivationRange(TorchFunctionMode):
    """Range of activations in a forward pass: every product with a weight, whoever makes it (a module,
    `ops/linear.py`).
    """

    def __init__(self) -> None:
        super().__init__()
        self._largest: list[Tensor] = []

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        arguments: Sequence[Any] = (),
        keywords: Mapping[str, Any] | None = None,
    ) -> Any:
        result = function(*arguments, **(keywords or {}))
        if function is F.linear:
            self._see(arguments[0], result)
        return result

    def _see(self, *activations: Tensor) -> None:
        """Take in what a matrix was multiplied with, and their product."""
        for x in activations:
            self._largest.append(torch.linalg.vector_norm(x.detach(), torch.inf, dtype=torch.float32))

    def largest(self) -> float:
        """The largest absolute activation; NaN, if there is one."""
        return float(torch.stack(self._largest).max())

    def value(self) -> float:
        """65,504 over the largest absolute activation: 5 to 50 is healthy, below 2 dangerous, 0 an overflow."""
        largest = self.largest()
        return LARGEST / max(1.0, largest) if math.isfinite(largest) else 0.0


@contextmanager
def watch_activations() -> Iterator[ActivationRange]:
    """See what goes into and out of products with weights in a `with` block, where compiled code runs eagerly."""
    with torch.compiler.set_stance("force_eager"), ActivationRange() as headroom:
        yield headroom
