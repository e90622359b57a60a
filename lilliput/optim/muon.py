"""Muon (kellerjordan.github.io/posts/muon) on matrices, AdamW on everything else: the baseline of NorMuon.

W <- W - lr wd W - size O,   O: the orthogonalized momentum, see optim/matrix_optimizer.py
"""

from dataclasses import dataclass
from typing import Literal

from lilliput.base.spec import check_choice
from lilliput.ops.newton_schulz import POLYNOMIALS
from lilliput.optim.matrix_optimizer import MatrixOptimizer
from lilliput.optim.matrix_update import MatrixUpdate

SIZES: dict[str, Literal["longer side", "ratio"]] = {"adam": "longer side", "original": "ratio"}


@dataclass(frozen=True, kw_only=True)
class Muon(MatrixOptimizer):
    """Peaks: `lr` for matrices, `adam_lr` for embedding, head and vectors; vectors are never decayed."""

    step_scale: Literal["adam", "original"] = "adam"
    """Scale of a step for a matrix of m rows and n columns: 0.2 lr sqrt(max(m, n)), which is a root mean square of 0.2
    lr as Adam's typical one (arXiv 2502.16982), or lr sqrt(max(1, m / n)).
    """
    polynomials: Literal["polar-express", "quintic"] = "quintic"
    """That orthogonalize."""
    cautious: bool = False
    """True if decay spares entries that their step leads away from zero (arXiv 2510.12402)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("Muon", SIZES, step_scale=self.step_scale)
        check_choice("Muon", POLYNOMIALS, polynomials=self.polynomials)

    @property
    def rule(self) -> MatrixUpdate:
        return MatrixUpdate(
            polynomials=POLYNOMIALS[self.polynomials],
            normalization="none",
            normalization_decay=0.0,
            step_scale=SIZES[self.step_scale],
            cautious=self.cautious,
        )
