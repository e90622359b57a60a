"""The gradient of a step: its norm, the norms of its parts by role, and clipping.

Norms are taken once, of all parameters together; what they add up to costs a few launches more.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lilliput.optim.roles import Role, role_of

NormOf = Callable[[Sequence[nn.Parameter], Sequence[Tensor]], Tensor]
"""Returns the norm of a gradient, given the norms of its parts, by parameter."""


def l2_norm(parameters: Sequence[nn.Parameter], norms: Sequence[Tensor]) -> Tensor:
    """Return the l2 norm of all, a scalar, given those of each."""
    return torch.linalg.vector_norm(torch.stack([*norms]))


class GradientClipper:
    """The gradients of a model's parameters, or of a `Trainable`'s: those that have one."""

    def __init__(self, model: nn.Module):
        self._parameters = [(role_of(name, parameter), parameter) for name, parameter in model.named_parameters()]

    def all(self) -> list[Tensor]:
        """Return all gradients in the order of the model."""
        return [parameter.grad for _, parameter in self._parameters if parameter.grad is not None]

    @torch.no_grad()
    def clip(self, max_norm: float, norm_of: NormOf = l2_norm) -> dict[str, Tensor]:
        """Make the l2 norm of the step's gradient `max_norm` at most.

        Args:
            max_norm: of all of it.
            norm_of: the norm of all of it, where other ranks have a part.

        Returns:
            scalars where the gradients are: `grad_norm`, the norm before that, as `clip_grad_norm_` has it to the bit,
            and `grad_norm/<role>` of those of each role.
        """
        here = [(role, parameter) for role, parameter in self._parameters if parameter.grad is not None]
        norms = torch._foreach_norm(self.all())
        norm = norm_of([parameter for _, parameter in here], norms)
        parts: dict[Role, list[Tensor]] = {}
        for (role, _), each in zip(here, norms, strict=True):
            parts.setdefault(role, []).append(each)
        by_role = torch._foreach_norm([torch.stack(part) for part in parts.values()])
        nn.utils.clip_grads_with_norm_([parameter for _, parameter in self._parameters], max_norm, norm)
        names = (f"grad_norm/{role.value}" for role in parts)
        return {"grad_norm": norm} | dict(zip(names, by_role, strict=True))
