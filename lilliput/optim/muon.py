"""Muon (kellerjordan.github.io/posts/muon) on matrices, AdamW on everything else: the baseline of NorMuon.

W <- W - lr wd W - size O,   O: the orthogonalized momentum, see optim/matrix_optimizer.py
"""

from dataclasses import dataclass
from math import inf
from typing import Literal

import torch
from torch import nn

from lilliput.base.spec import check_choice, check_range
from lilliput.ops.newton_schulz import POLYNOMIALS
from lilliput.optim.matrix_optimizer import matrices_and_rest
from lilliput.optim.matrix_update import MatrixUpdate

SIZES: dict[str, Literal["longer side", "ratio"]] = {"adam": "longer side", "original": "ratio"}


@dataclass(frozen=True, kw_only=True)
class Muon:
    """Peaks: `lr` for matrices, `adam_lr` for embedding, head and vectors; vectors are never decayed."""

    lr: float
    adam_lr: float
    momentum: float = 0.95
    step_scale: Literal["adam", "original"] = "adam"
    """Scale of a step for a matrix of m rows and n columns: 0.2 lr sqrt(max(m, n)), which is a root mean square of 0.2
    lr as Adam's typical one (arXiv 2502.16982), or lr sqrt(max(1, m / n)).
    """
    polynomials: Literal["polar-express", "quintic"] = "quintic"
    """That orthogonalize."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Betas of AdamW."""
    weight_decay: float = 0.1
    cautious: bool = False
    """True if decay spares entries that their step leads away from zero (arXiv 2510.12402)."""

    def __post_init__(self) -> None:
        check_choice("Muon", SIZES, step_scale=self.step_scale)
        check_choice("Muon", POLYNOMIALS, polynomials=self.polynomials)
        check_range("Muon", 0, inf, lr=self.lr, adam_lr=self.adam_lr, weight_decay=self.weight_decay)
        check_range("Muon", 0, 1, momentum=self.momentum)
        check_range("Muon(betas=)", 0, 1, first=self.betas[0], second=self.betas[1])

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return matrices_and_rest(
            model,
            MatrixUpdate(
                polynomials=POLYNOMIALS[self.polynomials],
                normalization="none",
                normalization_decay=0.0,
                step_scale=SIZES[self.step_scale],
                cautious=self.cautious,
            ),
            lr=self.lr,
            momentum=self.momentum,
            adam_lr=self.adam_lr,
            betas=self.betas,
            weight_decay=self.weight_decay,
        )
