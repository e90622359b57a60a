"""Held-out numbers at one point of a timeline: what a growth did to the model, or a phase to what it did not read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path

from torch import Tensor

from lilliput.base.errors import RecipeError
from lilliput.base.ownership import check_name
from lilliput.base.spec import check_range
from lilliput.computations.computation import Computation
from lilliput.data.corpus_format import TokenFiles
from lilliput.growth.growth import Lineage
from lilliput.model import LanguageModel, copy_weights
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.objective import CROSS_ENTROPY
from lilliput.train.machine import Machine
from lilliput.train.trainable import Trainable
from lilliput.train.validation import make_validator


@dataclass(frozen=True, kw_only=True)
class MeasureHeldOut(Computation):
    """Cross-entropy of the next token on held-out sides, in the unit of each corpus.

    A phase measures the corpora that it reads, at a glance. This measures any, as far as it is told, where the model
    stands: the live weights, and the averaged ones where there are some.
    """

    name: str
    corpora: tuple[str, ...]
    length: int
    """Positions of a row of text."""
    positions: int = 1_000_000
    """Measured of each corpus at most."""

    def __post_init__(self) -> None:
        check_name("computation", self.name, "MeasureHeldOut(name=...)")
        where = f"MeasureHeldOut {self.name!r}"
        check_range(where, 1, inf, length=self.length, positions=self.positions)
        if not self.corpora:
            raise RecipeError("nothing is measured", where=where, hint='name corpora: corpora=("texts",)')

    def reads(self) -> tuple[str, ...]:
        return self.corpora

    def compute(
        self, lineage: Lineage, tokens: Mapping[str, TokenFiles], folder: Path, *, machine: Machine, seed: int
    ) -> dict[str, dict[str, float | None]]:
        """Numbers by corpus, under `live` and, where there is an average, under `average`."""
        objective = Trainable.of_phase(lineage.model, [NextToken()], seed).objective(0)
        measure = make_validator(tokens, self.length, machine, self.positions)
        found = {"live": measure(objective, CROSS_ENTROPY)}
        if lineage.average:
            with _swapped_in(lineage.model, lineage.average):
                found["average"] = measure(objective, CROSS_ENTROPY)
        return found


@contextmanager
def _swapped_in(model: LanguageModel, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Give a model other weights for a while."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    copy_weights(model, weights)
    try:
        yield
    finally:
        copy_weights(model, before)
