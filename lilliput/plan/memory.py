"""Bytes that a phase holds from its first step to its last, exact: found without storage, on the meta device."""

from typing import cast

import torch
from torch import Tensor

from lilliput.base.implemented import is_implemented
from lilliput.model import ModelSpec
from lilliput.objectives.objective import ObjectiveModule
from lilliput.optim.optimizer import OptimizerSpec, state_tensors
from lilliput.train.phase import Phase
from lilliput.train.trainable import Trainable


def held_bytes(phase: Phase, spec: ModelSpec, *, captures: bool = False) -> dict[str, int]:
    """Bytes of the `weights`, `gradients`, `optimizer` state and `average` of a phase with a model of this shape.

    Args:
        phase: to be trained.
        spec: of its model.
        captures: whether passes are replayed as CUDA graphs, see `Machine.captures`.
    """
    objectives = [stage.objective for stage in phase.stages if is_implemented(stage.objective)]
    trainable = Trainable.of_phase(spec.skeleton(), objectives, seed=0)
    return {
        "weights": trainable.weight_bytes(),
        "gradients": _gradients(trainable, captures),
        "optimizer": sum(value.nbytes for value in _state(phase.optimizer, trainable).values()),
        "average": sum(value.nbytes for value in phase.ema.build(trainable).tensors.values()),
    }


def _gradients(trainable: Trainable, captures: bool) -> int:
    """Return the bytes of the gradients that exist together at most; each has its parameter's shape and type.

    After an update gradients are gone, and a step makes those of what its variant trains. Graphs keep the addresses of
    theirs, for all variants of a stage, and are released with it.
    """
    sizes = []
    for stage, objective in enumerate(trainable.stages):
        variants = [trainable.active(stage, variant) for variant in range(cast(ObjectiveModule, objective).variants)]
        together = [dict(pair for each in variants for pair in each.items())] if captures else variants
        sizes += [sum(parameter.nbytes for parameter in each.values()) for each in together]
    return max(sizes, default=sum(parameter.nbytes for parameter in trainable.parameters()))


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
