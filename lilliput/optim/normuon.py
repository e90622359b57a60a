"""NorMuon (arXiv 2510.05491, algorithm 1) on matrices, AdamW on everything else, in one optimizer.

    M <- b1 M + (1 - b1) G                       momentum
    O  = orthogonalise(b1 M + (1 - b1) G)        Nesterov, as in the authors' code
    v <- b2 v + (1 - b2) mean of O^2 over columns   one number a row
    W <- W - lr wd W - 0.2 lr sqrt(m n) O' / |O'|_F,   O' = O / (sqrt v + eps)

so the root mean square of a step is 0.2 lr, that of Adam's typical one. Shapes: m rows (outputs), n columns.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from lilliput.base.spec import check_range
from lilliput.model import LanguageModel
from lilliput.ops.orthogonalise import orthogonalise
from lilliput.optim.roles import Role, roles

STEP_RMS = 0.2
EPS = 1e-8


@dataclass(frozen=True, kw_only=True)
class NorMuon:
    """Peaks: `lr` for matrices, `adam_lr` for embedding, head and vectors; vectors are never decayed."""

    lr: float
    adam_lr: float
    momentum: float = 0.95
    row_decay: float = 0.95
    """b2 above."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Of AdamW."""
    weight_decay: float = 0.1

    def __post_init__(self) -> None:
        check_range("NorMuon", 0, inf, lr=self.lr, adam_lr=self.adam_lr, weight_decay=self.weight_decay)
        check_range("NorMuon", 0, 1, momentum=self.momentum, row_decay=self.row_decay)
        check_range("NorMuon(betas=)", 0, 1, first=self.betas[0], second=self.betas[1])

    def build(self, model: LanguageModel) -> torch.optim.Optimizer:
        by_role = roles(model)
        matrices: dict[str, Any] = {"momentum": self.momentum, "row_decay": self.row_decay, "peak": self.lr}
        adam: dict[str, Any] = {"betas": self.betas, "peak": self.adam_lr}
        decay = {Role.MATRIX: self.weight_decay, Role.EMBEDDING: self.weight_decay, Role.HEAD: self.weight_decay}
        groups = [
            {"params": list(by_role[role].values()), "role": role.value, "weight_decay": decay.get(role, 0.0)}
            | (matrices if role is Role.MATRIX else adam)
            for role in Role
        ]
        return NorMuonOptimizer([group for group in groups if group["params"]])


class NorMuonOptimizer(torch.optim.Optimizer):
    """One `step` for both kinds of groups, so that a step is either taken for all parameters or for none."""

    def __init__(self, groups: Iterable[dict[str, Any]]):
        super().__init__(groups, {"lr": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["role"] == Role.MATRIX.value:
                same_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
                for parameter in parameters:
                    same_shape[parameter.shape].append(parameter)
                for matrices in same_shape.values():
                    self._step_matrices(matrices, group)
            else:
                for parameter in parameters:
                    self._step_adam(parameter, group)

    def _step_matrices(self, matrices: list[nn.Parameter], group: dict[str, Any]) -> None:
        """Matrices of one shape [m, n] together: one batch of products instead of many small ones."""
        gradients = torch.stack([_gradient(matrix) for matrix in matrices])
        momentum = self._stacked(matrices, "momentum", torch.zeros_like)
        rows = self._stacked(matrices, "rows", lambda matrix: matrix.new_zeros(matrix.shape[0]))
        momentum.lerp_(gradients, 1 - group["momentum"])
        directions = orthogonalise(gradients.lerp(momentum, group["momentum"]))
        rows.lerp_(directions.square().mean(dim=-1), 1 - group["row_decay"])
        directions = directions / (rows.sqrt()[..., None] + EPS)
        entries = matrices[0].numel() ** 0.5
        size = group["lr"] * STEP_RMS * entries / (torch.linalg.matrix_norm(directions, keepdim=True) + EPS)
        for place, matrix in enumerate(matrices):
            matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(size[place] * directions[place])
            self.state[matrix]["momentum"].copy_(momentum[place])
            self.state[matrix]["rows"].copy_(rows[place])

    def _stacked(self, matrices: list[nn.Parameter], name: str, first: Any) -> Tensor:
        for matrix in matrices:
            if name not in self.state[matrix]:
                self.state[matrix][name] = first(matrix)
        return torch.stack([self.state[matrix][name] for matrix in matrices])

    def _step_adam(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        state, (first, second) = self.state[parameter], group["betas"]
        if not state:
            state |= {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        gradient = _gradient(parameter)
        state["step"] += 1
        count = float(state["step"])
        state["exp_avg"].lerp_(gradient, 1 - first)
        state["exp_avg_sq"].lerp_(gradient.square(), 1 - second)
        spread = (state["exp_avg_sq"] / (1 - second**count)).sqrt_().add_(EPS)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.addcdiv_(state["exp_avg"], spread, value=-group["lr"] / (1 - first**count))


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
