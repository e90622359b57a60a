"""The gradient of a step: its norm, the norms of its parts by role, and clipping.

Norms are taken once, of all parameters together; what they add up to costs a few launches more.
"""

import torch
from torch import Tensor, nn

from lilliput.optim.roles import Role, role_of


class GradientClipper:
    """The gradients of a model's parameters, or of a `Trainable`'s: those that have one."""

    def __init__(self, model: nn.Module):
        self._parameters = [(role_of(name, parameter), parameter) for name, parameter in model.named_parameters()]

    def all(self) -> list[Tensor]:
        """Return all gradients in the order of the model."""
        return [parameter.grad for _, parameter in self._parameters if parameter.grad is not None]

    @torch.no_grad()
    def clip(self, max_norm: float) -> dict[str, Tensor]:
        """Make their l2 norm `max_norm` at most.

        Returns:
            scalars where the gradients are: `grad_norm`, the norm before that, as `clip_grad_norm_` has it to the bit,
            and `grad_norm/<role>` of those of each role.
        """
        norms = torch._foreach_norm(self.all())
        norm = torch.linalg.vector_norm(torch.stack(norms))
        parts: dict[Role, list[Tensor]] = {}
        here = (role for role, parameter in self._parameters if parameter.grad is not None)
        for role, each in zip(here, norms, strict=True):
            parts.setdefault(role, []).append(each)
        by_role = torch._foreach_norm([torch.stack(part) for part in parts.values()])
        nn.utils.clip_grads_with_norm_([parameter for _, parameter in self._parameters], max_norm, norm)
        names = (f"grad_norm/{role.value}" for role in parts)
        return {"grad_norm": norm} | dict(zip(names, by_role, strict=True))
