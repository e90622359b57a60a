"""AdamW (arXiv 1711.05101) in operations over many parameters at once, one launch each on a GPU, no waiting."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def adam_step(parameters: list[Tensor], state: Mapping[Tensor, dict[str, Any]], group: Mapping[str, Any]) -> None:
    """Move parameters that have gradients, in place.

    Args:
        parameters: of any shapes.
        state: of each, `step` (on the processor: nothing waits for it), `exp_avg` and `exp_avg_sq`; empty first.
        group: their `lr`, `betas`, `eps`, `weight_decay` and `cautious`.
    """
    if not parameters:
        return
    for parameter in parameters:
        if not state[parameter]:
            state[parameter]["step"] = torch.zeros(())
            state[parameter]["exp_avg"] = torch.zeros_like(parameter)
            state[parameter]["exp_avg_sq"] = torch.zeros_like(parameter)
    steps, means, squares = ([state[one][key] for one in parameters] for key in ("step", "exp_avg", "exp_avg_sq"))
    gradients = [gradient(parameter) for parameter in parameters]
    rate, (first, second) = group["lr"], group["betas"]
    torch._foreach_add_(steps, 1)
    counts = [float(step) for step in steps]

    torch._foreach_lerp_(means, gradients, 1 - first)
    torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - second)
    spreads = torch._foreach_div(squares, [1 - second**count for count in counts])
    torch._foreach_sqrt_(spreads)
    torch._foreach_add_(spreads, group["eps"])
    decay_(parameters, means, rate * group["weight_decay"], cautious=group["cautious"])
    torch._foreach_addcdiv_(parameters, means, spreads, [-rate / (1 - first**count) for count in counts])


def gradient(parameter: Tensor) -> Tensor:
    """Return the gradient of a parameter that is known to have one."""
    assert parameter.grad is not None
    return parameter.grad


Tensors = list[Tensor] | tuple[Tensor, ...]


def decay_(parameters: Tensors, steps: Tensors, rate: float, *, cautious: bool) -> None:
    """W <- (1 - rate) W in place; a cautious one leaves entries alone that the step leads away from zero.

    Args:
        parameters: of any shapes, before the step.
        steps: what will be subtracted from each, times anything positive.
        rate: learning rate times weight decay.
        cautious: decay only entries of a positive product with their step (arXiv 2510.12402).
    """
    if rate == 0:
        return
    if not cautious:
        torch._foreach_mul_(parameters, 1 - rate)
        return
    shrinking = torch._foreach_mul(parameters, steps)
    torch._foreach_sign_(shrinking)
    torch._foreach_clamp_min_(shrinking, 0)
    torch._foreach_addcmul_(parameters, parameters, shrinking, value=-rate)
