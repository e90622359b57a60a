"""The outer optimizer of DiLoCo (arXiv 2311.08105): SGD with Nesterov momentum on the changes that ranks have made.

    outer gradient   g = mean over ranks of (anchor - weights)
    momentum         m <- momentum * m + g
    anchor           <- anchor - lr * (g + momentum * m), and the weights of all ranks are the anchor

Anchors and momentum lie in the host's memory, in fp32. Every operation is one rounding of an IEEE number, in an order
that ranks share, so that processors and GPUs of any kind come to the same bits. That is why no operation is fused.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

ANCHOR, MOMENTUM = "anchor", "momentum"
"""Kinds of tensors, before the name of their parameter."""


class OuterSGD:
    """The anchors of some parameters, which ranks have in common, and their momentum."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], lr: float, momentum: float):
        """Begin at the weights that parameters have."""
        self._parameters, self._lr, self._momentum = parameters, lr, momentum
        self.load({})

    def change(self, dtype: torch.dtype | None) -> dict[str, Tensor]:
        """Return what this rank has moved its parameters by since the last step, downhill; in a dtype, or fp32."""
        return {
            name: (self._anchors[name] - _on_host(one)).to(dtype or torch.float32)
            for name, one in self._parameters.items()
        }

    @torch.no_grad()
    def step(self, changes: Sequence[Mapping[str, Tensor]]) -> None:
        """Move anchors, and parameters onto them, given the changes of all ranks in their order."""
        for name, parameter in self._parameters.items():
            total = changes[0][name].float()
            for other in changes[1:]:
                total = total + other[name].float()
            gradient = total / len(changes)
            momentum = self._moments[name] * self._momentum + gradient
            anchor = self._anchors[name] - (momentum * self._momentum + gradient) * self._lr
            self._moments[name], self._anchors[name] = momentum, anchor
            parameter.copy_(anchor)

    def tensors(self) -> dict[str, Tensor]:
        """Return its state by name."""
        kinds = {ANCHOR: self._anchors, MOMENTUM: self._moments}
        return {f"{kind}/{name}": one for kind, its in kinds.items() for name, one in its.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a state; what it lacks begins at the weights that parameters have, without momentum."""
        live = {name: _on_host(one) for name, one in self._parameters.items()}
        self._anchors = {name: tensors.get(f"{ANCHOR}/{name}", one).clone() for name, one in live.items()}
        self._moments = {
            name: tensors.get(f"{MOMENTUM}/{name}", torch.zeros_like(one)).clone() for name, one in live.items()
        }


def _on_host(parameter: Tensor) -> Tensor:
    return parameter.detach().to("cpu", torch.float32)
