"""Decoupled weight decay of many parameters at once, everywhere or only where it does not work against the step."""

import torch
from torch import Tensor

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
