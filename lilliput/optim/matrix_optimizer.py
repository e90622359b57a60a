"""One optimizer for groups of two kinds: matrices that move by a `MatrixUpdate`, and parameters that AdamW moves.

    M <- b1 M + (1 - b1) G                       momentum
    O  = orthogonalize(b1 M + (1 - b1) G)        Nesterov's
    W <- W - lr wd W - size O'                   see optim/matrix_update.py

A momentum that is not averaged, M <- b1 M + G, is larger by 1 / (1 - b1) and has the same direction, which is all that
is left of it. Nothing here makes the host wait for a device.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lilliput.ops.newton_schulz import orthogonalize
from lilliput.optim.adam import adam_step, decay_, gradient
from lilliput.optim.matrix_update import EPS, MatrixUpdate
from lilliput.optim.roles import Role, roles


def matrices_and_rest(
    model: nn.Module,
    rule: MatrixUpdate,
    *,
    lr: float,
    momentum: float,
    adam_lr: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> "GroupedOptimizer":
    """Matrices by the rule, all others by AdamW; vectors and what objectives own are never decayed.

    Args:
        model: whose parameters.
        rule: of the matrices; whether decay is cautious is said there for all.
        lr: peak rate of matrices.
        momentum: of matrices.
        adam_lr: peak rate of the rest.
        betas: of AdamW.
        weight_decay: of matrices, embedding and head.
    """
    matrices: dict[str, Any] = {"peak": lr, "momentum": momentum, "rule": rule, "weight_decay": weight_decay}
    adam: dict[str, Any] = {"peak": adam_lr, "betas": betas, "eps": EPS, "cautious": rule.cautious}
    settings = {
        Role.MATRIX: matrices,
        Role.EMBEDDING: adam | {"weight_decay": weight_decay},
        Role.HEAD: adam | {"weight_decay": weight_decay},
        Role.VECTOR: adam | {"weight_decay": 0.0},
        Role.OBJECTIVE: adam | {"weight_decay": 0.0},
    }
    return GroupedOptimizer(
        {"params": list(by_name.values()), "role": role.value} | settings[role]
        for role, by_name in roles(model).items()
        if by_name
    )


class GroupedOptimizer(torch.optim.Optimizer):
    """One `step` for both kinds of groups, so that a step is either taken for all parameters or for none.

    A group of matrices has a `rule` and its `momentum`; any other has the settings of `adam_step`.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]):
        super().__init__(groups, {"lr": 0.0})
        self._stacks: dict[tuple[Any, ...], _Stack] = {}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            parameters: list[Tensor] = [one for one in group["params"] if one.grad is not None]
            if "rule" not in group:
                adam_step(parameters, self.state, group)
                continue
            same_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in parameters:
                same_shape[parameter.shape].append(parameter)
            for matrices in same_shape.values():
                self._step_matrices(matrices, group)

    def _step_matrices(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        """Matrices of one shape [m, n] together: one batch of products instead of many small ones."""
        rule, rate, shape = group["rule"], group["lr"], matrices[0].shape
        gradients = torch.stack([gradient(matrix) for matrix in matrices])
        momentum = self._stacked(matrices, "momentum", shape)
        momentum.lerp_(gradients, 1 - group["momentum"])
        directions = orthogonalize(gradients.lerp_(momentum, group["momentum"]), rule.polynomials)
        entries = rule.state_size(*shape)
        divided = rule.divided(directions, self._stacked(matrices, "squares", (entries,)) if entries else None)
        steps = divided.mul_(rule.sizes(rate, directions, divided)).unbind()
        decay_(matrices, steps, rate * group["weight_decay"], cautious=rule.cautious)
        torch._foreach_sub_(matrices, steps)

    def _stacked(self, matrices: list[Tensor], name: str, shape: Iterable[int]) -> Tensor:
        """State [N, *shape] of matrices in one piece, zeros first; `state` has a slice of it for each matrix.

        It stays where it is from step to step, unless the state was replaced (by that of a checkpoint) or other
        matrices move together now.
        """
        key = (name, *map(id, matrices))
        stack = self._stacks.get(key)
        if stack is None or not stack.is_state(self.state):
            zeros = torch.zeros(tuple(shape), dtype=matrices[0].dtype, device=matrices[0].device)
            whole = torch.stack([self.state[matrix].get(name, zeros) for matrix in matrices])
            stack = _Stack(matrices=matrices, name=name, whole=whole, slices=whole.unbind())
            for matrix, part in zip(matrices, stack.slices, strict=True):
                self.state[matrix][name] = part
            self._stacks = {key: old for key, old in self._stacks.items() if old.is_state(self.state)} | {key: stack}
        return stack.whole


@dataclass(frozen=True, kw_only=True)
class _Stack:
    """One entry of the state of some matrices."""

    matrices: list[Tensor]
    name: str
    whole: Tensor
    slices: tuple[Tensor, ...]

    def is_state(self, state: Any) -> bool:
        """Return whether the slices are the state now."""
        return all(state[one].get(self.name) is part for one, part in zip(self.matrices, self.slices, strict=True))
