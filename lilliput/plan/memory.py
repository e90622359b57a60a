"""Bytes that a phase holds from its first step to its last, exact: found without storage, on the meta device."""

import torch
from torch import Tensor

from lilliput.model import LanguageModel, ModelSpec
from lilliput.optim.optimizer import OptimizerSpec, state_tensors
from lilliput.train.phase import Phase


def held_bytes(phase: Phase, spec: ModelSpec) -> dict[str, int]:
    """Bytes of the `weights`, `gradients`, `optimizer` state and `average` of a phase with a model of this shape."""
    model = spec.skeleton()
    weights = sum(parameter.nbytes for parameter in model.parameters())
    return {
        "weights": weights,
        "gradients": weights,  # each of its parameter's shape and type
        "optimizer": sum(value.nbytes for value in _state(phase.optimizer, model).values()),
        "average": sum(value.nbytes for value in phase.ema.build(model).tensors.values()),
    }


def _state(spec: OptimizerSpec, model: LanguageModel) -> dict[str, Tensor]:
    """What the optimizer holds after its first step, which is taken here on tensors without storage."""
    optimizer = spec.build(model)
    for group in optimizer.param_groups:
        if "fused" in group:
            group["fused"] = False  # fused kernels do not know the meta device; the plain ones hold the same
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    return state_tensors(optimizer, model)
