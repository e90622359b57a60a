"""Optimizers of groups of two kinds: matrices that move by a `MatrixUpdate`, and parameters that AdamW moves.

    M <- b1 M + (1 - b1) G                       momentum
    O  = orthogonalize(b1 M + (1 - b1) G)        Nesterov's
    W <- W - lr wd W - size O'                   see optim/matrix_update.py

A momentum that is not averaged, M <- b1 M + G, is larger by 1 / (1 - b1) and has the same direction, which is all that
is left of it. Nothing here makes the host wait for a device.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from lilliput.base.spec import check_range
from lilliput.ops.newton_schulz import orthogonalize
from lilliput.optim.adam import adam_step, decay_, gradient
from lilliput.optim.matrix_update import EPS, MatrixUpdate
from lilliput.optim.roles import groups


@dataclass(frozen=True, kw_only=True)
class MatrixOptimizer(ABC):
    """Base of optimizers that move matrices by a rule and everything else by AdamW; vectors are never decayed."""

    lr: float
    """Peak for matrices."""
    adam_lr: float
    """Peak for embedding, head and vectors."""
    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.95)
    """Betas of AdamW."""
    weight_decay: float = 0.1
    """Decay of matrices, embedding and head."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_range(name, 0, inf, lr=self.lr, adam_lr=self.adam_lr, weight_decay=self.weight_decay)
        check_range(name, 0, 1, momentum=self.momentum)
        check_range(f"{name}(betas=)", 0, 1, first=self.betas[0], second=self.betas[1])

    @property
    @abstractmethod
    def rule(self) -> MatrixUpdate:
        """The rule by which matrices move; its `cautious` is that of every parameter's decay."""

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        rule = self.rule
        matrices = {"peak": self.lr, "momentum": self.momentum, "rule": rule, "weight_decay": self.weight_decay}
        vectors = {
            "peak": self.adam_lr,
            "betas": self.betas,
            "eps": EPS,
            "cautious": rule.cautious,
            "weight_decay": 0.0,
        }
        return GroupedOptimizer(groups(model, matrices, vectors | {"weight_decay": self.weight_decay}, vectors))


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
