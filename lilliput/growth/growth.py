"""The seam for changes of the model itself, between phases: layers, vocabulary, or which weights go on."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import tokenizers
from torch import Tensor

from lilliput.entry import TimelineEntry
from lilliput.model import LanguageModel

GROWTH = "growth"


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """What a timeline carries from one entry to the next."""

    model: LanguageModel
    tokenizer: tokenizers.Tokenizer
    average: dict[str, Tensor]
    """Averaged weights of the phase before, by name; empty without one."""


class Growth(TimelineEntry, Protocol):
    """A growth as recipes write it; it inherits this."""

    kind: ClassVar[str] = GROWTH

    def grow(self, lineage: Lineage, seed: int) -> Lineage:
        """The lineage with another model; a function of the lineage and the seed."""
        ...
