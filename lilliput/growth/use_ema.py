"""Growths that change the weights and nothing else."""

from dataclasses import dataclass, replace

from tokenizers import Tokenizer

from lilliput.base.errors import RecipeError
from lilliput.growth.growth import Lineage
from lilliput.model import ModelSpec, copy_weights


@dataclass(frozen=True, kw_only=True)
class UseEma:
    """Go on from the averaged weights of the phase before."""

    def shape(self, spec: ModelSpec) -> ModelSpec:
        return spec

    def retokenize(self, tokenizer: Tokenizer) -> Tokenizer:
        return tokenizer

    def grow(self, lineage: Lineage, seed: int) -> Lineage:
        if not lineage.average:
            raise RecipeError(
                "UseEma has no averaged weights to use",
                where="the recipe's timeline",
                hint="give the phase before it ema=Ema(...), or leave UseEma out",
            )
        copy_weights(lineage.model, lineage.average)
        return replace(lineage, average={})
