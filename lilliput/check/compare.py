"""Tensors that have to be equal, and what is said of two that are not: by how much, and where."""

import torch
from torch import Tensor

from lilliput.check.result import CheckFailed

TOLERANCE = 1e-4
"""Tolerance relative to the largest value, for sums in fp32 that are made in another order. What a mistake changes is
far more.
"""


def check_equal(
    found: Tensor,
    expected: Tensor,
    what: str,
    *,
    where: str,
    hint: str,
    exact: bool = False,
    tolerance: float = TOLERANCE,
) -> None:
    """Refuse a tensor that is not another one.

    Args:
        found: what a part made.
        expected: what it should be.
        what: names the two; how far apart they are, and at which index, comes behind it.
        where: the method.
        hint: what to do.
        exact: to the bit, not but for rounding.
        tolerance: relative to the largest value.

    Raises:
        CheckFailed: it is not.
    """
    if found.shape != expected.shape:
        shapes = f"{list(found.shape)} and not {list(expected.shape)}"
        raise CheckFailed(f"{what}: the shape is {shapes}", where=where, hint=hint)
    if exact and torch.equal(found, expected):
        return
    apart = (found.double() - expected.double()).abs()
    apart = torch.where(apart.isnan(), torch.inf, apart)
    largest, size = largest_of(apart), largest_of(expected)
    if exact or largest > tolerance * size or size == torch.inf:
        index = [int(one) for one in torch.unravel_index(apart.argmax(), apart.shape)]
        place = f" at {index}" if index else ""
        beside = "" if exact else f", where the largest value is {size:.3g}"
        how = "not finite" if largest == torch.inf else f"{largest:.3g} apart"
        raise CheckFailed(f"{what}: {how}{place}{beside}", where=where, hint=hint)


def largest_of(values: Tensor) -> float:
    """Return the largest absolute value; infinity where one is no number."""
    if not values.numel():
        return 0.0
    largest = float(values.detach().abs().amax())
    return largest if largest == largest else torch.inf
