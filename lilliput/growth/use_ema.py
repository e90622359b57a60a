"""Growths that change the weights and nothing else."""

from dataclasses import dataclass, replace

from lilliput.base.errors import RecipeError
from lilliput.growth.growth import Growth, Lineage
from lilliput.model import copy_weights


@dataclass(frozen=True, kw_only=True)
class UseEma(Growth):
    """Continue with the averaged weights of the phase before."""

    def grow(self, lineage: Lineage, seed: int) -> Lineage:
        if not lineage.average:
            raise RecipeError(
                "UseEma has no averaged weights to use",
                where="the recipe's timeline",
                hint="give the phase before it ema=Ema(...), or leave UseEma out",
            )
        copy_weights(lineage.model, lineage.average)
        return replace(lineage, average={})
