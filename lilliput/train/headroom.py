"""How far the activations of a model are from what fp16 cannot hold."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

LARGEST = 65_504.0
"""The largest number of fp16."""


class Headroom:
    """What was seen of a forward pass."""

    def __init__(self) -> None:
        self._largest: list[Tensor] = []

    def see(self, module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        """Take in what a matrix was multiplied with, and their product."""
        for x in (*inputs, outputs):
            self._largest.append(torch.linalg.vector_norm(x.detach(), torch.inf, dtype=torch.float32))

    def largest(self) -> float:
        """The largest absolute activation; NaN, if there is one."""
        return float(torch.stack(self._largest).max())

    def value(self) -> float:
        """65,504 over the largest absolute activation: 5 to 50 is healthy, below 2 dangerous, 0 an overflow."""
        largest = self.largest()
        return LARGEST / max(1.0, largest) if math.isfinite(largest) else 0.0


@contextmanager
def looking(model: nn.Module) -> Iterator[Headroom]:
    """See what goes into and out of the products of `model` in a `with` block, where compiled code runs eagerly."""
    headroom = Headroom()
    hooks = [module.register_forward_hook(headroom.see) for module in model.modules() if isinstance(module, nn.Linear)]
    try:
        with torch.compiler.set_stance("force_eager"):
            yield headroom
    finally:
        for hook in hooks:
            hook.remove()
