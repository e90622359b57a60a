"""The seam between a phase and what moves its parameters."""

from typing import Protocol

import torch
from torch import Tensor, nn


class OptimizerSpec(Protocol):
    """An optimizer as recipes write it."""

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return an optimizer over every parameter, each exactly once; every group carries its `peak` learning rate.

        Args:
            model: the model and what objectives own, a `Trainable`; `named_parameters` has all of them. A parameter
                without a gradient must stay as it is in a step: another variant of the objective trains it.
        """
        ...


def set_multiplier(optimizer: torch.optim.Optimizer, multiplier: float) -> None:
    """Set every group's learning rate to its peak times `multiplier`; one that lies on a device stays where it is."""
    for group in optimizer.param_groups:
        rate = group["peak"] * multiplier
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def state_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state as named tensors, `<parameter name>/<entry>`."""
    return {
        f"{name}/{entry}": value
        for name, parameter in model.named_parameters()
        for entry, value in optimizer.state.get(parameter, {}).items()
    }


def load_state_tensors(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """The inverse of `state_tensors`."""
    parameters = dict(model.named_parameters())
    fused = {id(parameter) for group in optimizer.param_groups if group.get("fused") for parameter in group["params"]}
    for key, value in tensors.items():
        name, entry = key.rsplit("/", 1)
        parameter = parameters[name]
        # Moments live beside their parameter, those of a single number too; a count of steps for fused kernels only.
        beside = entry != "step" or id(parameter) in fused
        optimizer.state[parameter][entry] = value.to(parameter.device) if beside else value
