"""Training on pairs: what a phase reads, with a reference's log-probabilities beside the rows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from lilliput.base.errors import RecipeError
from lilliput.data.batch import Batch
from lilliput.data.packed_rows import PackedReader
from lilliput.data.pair_reference import with_reference
from lilliput.data.pair_rows import REFERENCE, PackedPairs


@dataclass(frozen=True, kw_only=True)
class PairData:
    """Training on the pairs of a corpus."""

    corpus: str
    """Name of the corpus of pairs."""
    reference: str
    """Name of the `ReferenceLogProbabilities` before the phase, of this corpus."""
    seed: int = 0
    """Decides, with the number of the pass, the order of the rows."""
    lost: float = 0.05
    """Share of the pairs that may be dropped, or shortened by their oldest turns; more is an error."""

    def __post_init__(self) -> None:
        if not 0 <= self.lost <= 1:
            raise RecipeError(f"lost cannot be {self.lost}", where="PairData.lost", hint="give a fraction in [0, 1]")

    @property
    def corpora(self) -> tuple[str, ...]:
        """Name of the corpus that is read."""
        return (self.corpus,)

    @property
    def computed(self) -> tuple[str, ...]:
        """Name of the computation that is read."""
        return (self.reference,)

    def bytes_per_token(self, tokens: Mapping[str, PackedPairs]) -> None:
        """Only answers are targets, so that bits per byte would mean nothing."""

    def open(self, tokens: Mapping[str, PackedPairs]) -> PackedReader:
        """Read from the train side of this corpus."""
        return PackedReader(self.corpus, tokens[self.corpus], self.seed, "pairs")

    def with_computed(self, tokens: Mapping[str, Any], computed: Mapping[str, Any]) -> dict[str, Any]:
        """The token files with the reference's log-probabilities.

        Raises:
            LilliputError: they are of other pairs, or the computation is not of pairs.
        """
        bound = with_reference(tokens[self.corpus], computed[self.reference], self.reference)
        return {**tokens, self.corpus: bound}

    def synthetic(self, batch: Batch) -> Batch:
        """Rows of random tokens as this brings rows, with one pair each, for plans."""
        document_ids = torch.zeros_like(batch.document_ids)
        document_ids[:, document_ids.shape[1] // 2 :] = 1
        return replace(batch, document_ids=document_ids, extras={REFERENCE: torch.zeros(len(document_ids), 1, 2)})
