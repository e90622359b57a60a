"""Bytes that a phase holds from its first step to its last, exact: found without storage, on the meta device."""

import torch
from torch import Tensor

from lilliput.base.implemented import is_implemented
from lilliput.model import ModelSpec
from lilliput.optim.optimizer import OptimizerSpec, state_tensors
from lilliput.train.phase import Phase
from lilliput.train.trainable import Trainable


def held_bytes(phase: Phase, spec: ModelSpec) -> dict[str, int]:
    """Bytes of the `weights`, `gradients`, `optimizer` state and `average` of a phase with a model of this shape."""
    objectives = [stage.objective for stage in phase.stages if is_implemented(stage.objective)]
    trainable = Trainable.of_phase(spec.skeleton(), objectives, seed=0)
    return {
        "weights": trainable.weight_bytes(),
        # Of each parameter's shape and type.
        "gradients": sum(parameter.nbytes for parameter in trainable.parameters()),
        "optimizer": sum(value.nbytes for value in _state(phase.optimizer, trainable).values()),
        "average": sum(value.nbytes for value in phase.ema.build(trainable).tensors.values()),
    }


def _state(spec: OptimizerSpec, model: Trainable) -> dict[str, Tensor]:
    """Return what the optimizer holds after its first step, which is taken here on tensors without storage."""
    optimizer = spec.build(model)
    for group in optimizer.param_groups:
        if "fused" in group:
            group["fused"] = False  # fused kernels do not know the meta device; the plain ones hold the same
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    return state_tensors(optimizer, model)
