"""From an orthogonalized direction O of a matrix to its step: what it is divided by, and how long it is made.

    O' = O / what its rows (or columns) have been;   W <- W - size(lr, O, O') O'

Shapes: N matrices of one shape, m rows (outputs), n columns.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lilliput.ops.newton_schulz import Polynomials

STEP_RMS = 0.2
"""Root mean square of a step at rate 1, as of Adam's typical one."""
EPS = 1e-8


@dataclass(frozen=True, kw_only=True)
class MatrixUpdate:
    """Update rule of matrices."""

    polynomials: Polynomials
    """That orthogonalize the momentum."""
    normalization: Literal["rows", "longer side", "row lengths", "none"]
    """Square root of a running mean square: one a row, or one a row or column, of whichever there are more; the l2 norm
    of each row of this very direction; nothing."""
    normalization_decay: float
    """Decay of the running mean."""
    step_scale: Literal["fixed", "kept", "longer side", "ratio"]
    """`fixed`: a root mean square of 0.2 lr; `kept`: |O'|_F made |O|_F again, times the ratio; `longer side`: O' times
    0.2 lr sqrt(max(m, n)), the same 0.2 lr for orthogonal O' = O; `ratio`: O' times lr sqrt(max(1, m / n))."""
    cautious: bool
    """True if weight decay spares entries that the step leads away from zero."""

    def state_size(self, rows: int, columns: int) -> int:
        """Numbers of the running mean of an [m, n] matrix; 0 if none."""
        return {"rows": rows, "longer side": max(rows, columns)}.get(self.normalization, 0)

    def divided(self, directions: Tensor, squares: Tensor | None) -> Tensor:
        """O [N, m, n] -> O'; the running means [N, entries] take O in first."""
        if self.normalization == "none":
            return directions
        if self.normalization == "row lengths":
            return directions / (torch.linalg.vector_norm(directions, dim=-1, keepdim=True) + EPS)
        assert squares is not None
        rows, columns = directions.shape[-2:]
        across = -1 if self.normalization == "rows" or rows >= columns else -2
        squares.lerp_(directions.square().mean(dim=across), 1 - self.normalization_decay)
        return directions / (squares.sqrt().unsqueeze(across) + EPS)

    def sizes(self, rate: float, before: Tensor, after: Tensor) -> Tensor | float:
        """Return what to multiply O' = `after` by, from O = `before` [N, m, n]: [N, 1, 1] or one number for all."""
        rows, columns = after.shape[-2:]
        ratio = max(1.0, rows / columns) ** 0.5
        if self.step_scale == "fixed":
            return rate * STEP_RMS * (rows * columns) ** 0.5 / (_norm(after) + EPS)
        if self.step_scale == "kept":
            return rate * ratio * _norm(before) / (_norm(after) + EPS)
        if self.step_scale == "longer side":
            return rate * STEP_RMS * max(rows, columns) ** 0.5
        return rate * ratio


def _norm(matrices: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(matrices, keepdim=True)
