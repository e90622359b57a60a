"""Log-probabilities of the answers of pairs under the model as it is, for a preference phase after it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import torch

from lilliput.base.errors import RecipeError
from lilliput.base.ownership import check_name
from lilliput.computations.computation import Computation
from lilliput.data.corpus_format import TokenFiles
from lilliput.data.pair_reference import PROGRESS, ReferenceWriter, is_written, with_reference
from lilliput.data.pair_rows import PackedPairs
from lilliput.data.token_files import SIDES, Side
from lilliput.growth.growth import Computed, Lineage
from lilliput.model import LanguageModel
from lilliput.objectives.answers import answers_of, hidden_states
from lilliput.train.machine import Machine

SYNC_SECONDS = 20.0
"""Time after which what is computed is safe from a kill."""


@dataclass(frozen=True, kw_only=True)
class ReferenceLogProbabilities(Computation):
    """The reference of DPO, computed once: afterwards no second model is in memory, and no step waits for one."""

    name: str
    corpus: str
    """Name of the corpus of pairs."""

    def __post_init__(self) -> None:
        check_name("computation", self.name, "ReferenceLogProbabilities(name=...)")

    def reads(self) -> tuple[str, ...]:
        return (self.corpus,)

    def compute(
        self, lineage: Lineage, tokens: Mapping[str, TokenFiles], folder: Path, *, machine: Machine, seed: int
    ) -> dict[str, float | int | str]:
        """The number of pairs, the hash of their token files, and mean log-probabilities of answers to train on."""
        pairs = tokens[self.corpus]
        if not isinstance(pairs, PackedPairs):
            raise RecipeError(
                f"the corpus {self.corpus!r} holds no pairs",
                where=f"ReferenceLogProbabilities {self.name!r}",
                hint="name one such as PairFiles or HubPairs",
            )
        for side in SIDES:
            if not is_written(folder, side, pairs):
                _write_side(lineage.model, pairs, side, folder, machine)
        (folder / PROGRESS).unlink(missing_ok=True)
        value = {
            "pairs_sha256": pairs.index["sha256"],
            "pairs": sum(pairs.index["sides"][side]["pairs"] for side in SIDES),
        }
        return value | _means(with_reference(pairs, Computed(value=value, folder=folder), self.name))


@torch.no_grad()
def _write_side(model: LanguageModel, pairs: PackedPairs, side: Side, folder: Path, machine: Machine) -> None:
    size, count, saved = machine.held_out_rows(pairs.length), pairs.count(side), monotonic()
    with ReferenceWriter(folder, side, pairs) as writer:
        for start in range(writer.rows, count, size):
            batch = pairs.take(side, range(start, min(start + size, count))).to(machine.device)
            with machine.cast(), torch.compiler.set_stance("force_eager"):
                answers = answers_of(model, hidden_states(model, batch), batch, pairs.pairs_per_row)
            writer.write(answers.log_probabilities)
            if monotonic() - saved > SYNC_SECONDS:
                writer.sync()
                saved = monotonic()
        writer.sync()


def _means(pairs: PackedPairs) -> dict[str, float]:
    values = pairs.reference_of("train")
    there = values[(values != 0).all(axis=-1)].astype("float64")
    return {name: float(there[:, place].mean()) for place, name in enumerate(("chosen", "rejected"))}
