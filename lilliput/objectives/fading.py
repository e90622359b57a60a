"""Weights that fall in a straight line to nothing, so that a phase ends as ordinary training."""

from math import inf

from torch import Tensor

from lilliput.base.errors import RecipeError
from lilliput.base.spec import check_range


def check_fading(where: str, weight: float, until: float) -> None:
    """Refuse a weight below 0, and an end that is no fraction of a phase.

    Raises:
        RecipeError: it is.
    """
    check_range(where, 0, inf, weight=weight)
    if not 0 < until <= 1:
        raise RecipeError(
            f"until cannot be {until}", where=where, hint="give a fraction of the phase, above 0 and at most 1"
        )


def fraction_left(until: float, progress: Tensor) -> Tensor:
    """Return what is left of such a weight, a scalar in [0, 1], at a fraction of the phase."""
    return (1 - progress / until).clamp(min=0)
