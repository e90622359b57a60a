"""The seam for changes of the model itself, between phases: layers, vocabulary, or which weights go on."""

from dataclasses import dataclass
from typing import Protocol

import tokenizers
from torch import Tensor

from lilliput.model import LanguageModel, ModelSpec


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """What a timeline carries from one entry to the next."""

    model: LanguageModel
    tokenizer: tokenizers.Tokenizer
    average: dict[str, Tensor]
    """Averaged weights of the phase before, by name; empty without one."""


class Growth(Protocol):
    """A growth as recipes write it."""

    def shape(self, spec: ModelSpec) -> ModelSpec:
        """What becomes of the model's shape; refused now if it cannot be."""
        ...

    def retokenize(self, tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
        """What becomes of the tokenizer: known without a model, so that token files can be written before training."""
        ...

    def grow(self, lineage: Lineage, seed: int) -> Lineage:
        """The line with another model; a function of the line and the seed."""
        ...
