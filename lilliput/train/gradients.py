"""The gradient of a step: its norm, the norms of its parts by role, and clipping.

Norms are taken once, of all parameters together; what they add up to costs a few launches more and is read with the
other numbers of a step.
"""

import torch
from torch import Tensor, nn

from lilliput.optim.roles import Role, role_of


class Gradients:
    """The gradients of a model's parameters, those that have one."""

    def __init__(self, model: nn.Module):
        self._parameters = [(role_of(name, parameter), parameter) for name, parameter in model.named_parameters()]
        self._roles: list[Role] = []
        self._by_role: list[Tensor] = []

    def all(self) -> list[Tensor]:
        """In the order of the model."""
        return [parameter.grad for _, parameter in self._parameters if parameter.grad is not None]

    @torch.no_grad()
    def clip(self, most: float) -> Tensor:
        """Make their l2 norm `most` at most; the norm before that, as `clip_grad_norm_` has it to the bit."""
        norms = torch._foreach_norm(self.all())
        norm = torch.linalg.vector_norm(torch.stack(norms))
        parts: dict[Role, list[Tensor]] = {}
        here = (role for role, parameter in self._parameters if parameter.grad is not None)
        for role, each in zip(here, norms, strict=True):
            parts.setdefault(role, []).append(each)
        self._roles = list(parts)
        self._by_role = list(torch._foreach_norm([torch.stack(part) for part in parts.values()]))
        nn.utils.clip_grads_with_norm_([parameter for _, parameter in self._parameters], most, norm)
        return norm

    def numbers(self) -> dict[str, float]:
        """Norms by role before the last clipping, as `grad_norm/<role>`; nothing before the first."""
        values = torch.stack(self._by_role).tolist() if self._by_role else []
        return {f"grad_norm/{role.value}": value for role, value in zip(self._roles, values, strict=True)}
