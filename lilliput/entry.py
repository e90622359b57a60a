"""The seam for what stands in a timeline: all that is asked of an entry, whatever kind it is.

A new kind of entry is a class that inherits `TimelineEntry` and a handler of its kind in `run/steps.py`, where it is
carried out; plans, reports, sweeps and token files ask it the questions below.
"""

from typing import ClassVar, Protocol

from tokenizers import Tokenizer

from lilliput.model import ModelSpec


class TimelineEntry(Protocol):
    """An entry of a timeline as recipes write it; what it does not say is that it reads and changes nothing."""

    kind: ClassVar[str]
    """Names what carries it out; a word for people."""

    def reads(self) -> tuple[str, ...]:
        """Names of the recipe's corpora whose token files it needs."""
        return ()

    def needs(self) -> tuple[str, ...]:
        """Names of the phases and computations before it whose results it reads by name."""
        return ()

    def shape(self, spec: ModelSpec) -> ModelSpec:
        """Return what becomes of the model's shape; refused now if it cannot be."""
        return spec

    def retokenize(self, tokenizer: Tokenizer) -> Tokenizer:
        """Return what becomes of the tokenizer: known without a model, so that token files can be written before
        training.
        """
        return tokenizer

    @property
    def keeps_optimizer(self) -> bool:
        """True if the next phase begins with an optimizer's state that this entry hands on."""
        return False

    def describe(self) -> str:
        """The entry in a few words."""
        return type(self).__name__

    def part(self, index: int) -> str | None:
        """The part of a run that is never replaced unasked, at an index of the timeline; None without one."""
        return None
