"""NorMuon (arXiv 2510.05491) on matrices, AdamW on everything else, in one optimizer.

The paper's algorithm 1, with Nesterov's momentum as in its authors' code; O is defined in optim/matrix_optimizer.py:

    v <- b2 v + (1 - b2) mean of O^2 over columns     one number a row
    W <- W - lr wd W - 0.2 lr sqrt(m n) O' / |O'|_F,   O' = O / (sqrt v + eps)

so the root mean square of a step is 0.2 lr, that of Adam's typical one. Whatever else goes by the name is a variant.
Rates mean other things there: the root mean square of a step is about lr / sqrt n for `repo` and `modded`, and 0.2 lr
for `author_early`, times sqrt(m / n) where there are more rows than columns.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from lilliput.base.errors import RecipeError
from lilliput.base.spec import check_choice, check_range
from lilliput.ops.newton_schulz import POLAR_EXPRESS, POLYNOMIALS, QUINTIC
from lilliput.optim.matrix_optimizer import MatrixOptimizer
from lilliput.optim.matrix_update import MatrixUpdate

PAPER = MatrixUpdate(
    polynomials=POLAR_EXPRESS, normalization="rows", normalization_decay=0.95, step_scale="fixed", cautious=False
)
VARIANTS = {
    "paper": PAPER,
    "repo": replace(PAPER, polynomials=QUINTIC, step_scale="kept"),
    "modded": replace(PAPER, normalization="longer side", normalization_decay=0.9, step_scale="kept", cautious=True),
    "author_early": replace(
        PAPER, normalization="row lengths", normalization_decay=0.0, step_scale="longer side", cautious=True
    ),
}


@dataclass(frozen=True, kw_only=True)
class NorMuon(MatrixOptimizer):
    """Peaks: `lr` for matrices, `adam_lr` for embedding, head and vectors; vectors are never decayed."""

    variant: Literal["paper", "repo", "modded", "author_early"] = "paper"
    """The paper's algorithm, but orthogonalized as closely as five products can (`polynomials="quintic"` is as it was
    published); its authors' repository; modded-nanogpt's; the early code of OdinNext's author."""
    row_decay: float | None = None
    """b2 above; None is the variant's: 0.95, of `modded` 0.9."""
    polynomials: Literal["polar-express", "quintic"] | None = None
    """That orthogonalize; None is the variant's: the quintic of `repo`, Polar Express of the others."""
    cautious: bool | None = None
    """True if decay spares entries that their step leads away from zero (arXiv 2510.12402); None is the variant's: it
    does in `modded` and `author_early`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("NorMuon", VARIANTS, variant=self.variant)
        if self.polynomials is not None:
            check_choice("NorMuon", POLYNOMIALS, polynomials=self.polynomials)
        if self.row_decay is not None:
            check_range("NorMuon", 0, 1, row_decay=self.row_decay)
            if self.variant == "author_early":
                raise RecipeError(
                    f"row_decay={self.row_decay} has no effect: this variant keeps no mean of rows",
                    where="NorMuon(variant='author_early', row_decay=)",
                    hint="leave it out",
                )

    @property
    def rule(self) -> MatrixUpdate:
        given: dict[str, Any] = {
            "normalization_decay": self.row_decay,
            "polynomials": POLYNOMIALS[self.polynomials] if self.polynomials else None,
            "cautious": self.cautious,
        }
        return replace(VARIANTS[self.variant], **{name: value for name, value in given.items() if value is not None})
