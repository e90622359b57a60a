"""The seam for entries that compute something lasting from a model and data, between phases: log-probabilities of a
reference model, a teacher's replies, a measurement.

It runs once. What it returns and the files that it writes are kept in `computed/<nn-name>/` of the run, with their
hashes; later entries depend on it as they do on a phase.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from lilliput.base.errors import RecipeError
from lilliput.data.corpus_format import TokenFiles
from lilliput.entry import TimelineEntry
from lilliput.growth.growth import Lineage
from lilliput.train.machine import Machine

COMPUTATION = "computation"


class Computation(TimelineEntry, Protocol):
    """A computation as recipes write it; it inherits this, and has a `name`, which becomes part of a path."""

    kind: ClassVar[str] = COMPUTATION
    name: str

    def compute(
        self, lineage: Lineage, tokens: Mapping[str, TokenFiles], folder: Path, *, machine: Machine, seed: int
    ) -> Any:
        """Return what it comes to; a function of the arguments.

        Args:
            lineage: the model as it is here, which stays as it is.
            tokens: opened token files of the corpora that it reads, by name.
            folder: for its files, `.json`, `.jsonl`, `.bin` or `.safetensors`; it has those of a call that was killed,
                which this one may go on from.
            machine: resolved.
            seed: of its randomness.

        Returns:
            A JSON value, which plans and pages of the run show; what is large goes into files.
        """
        ...

    def describe(self) -> str:
        """Name and class."""
        return f"{self.name}, {type(self).__name__}"

    def part(self, index: int) -> str:
        """Its folder in the run."""
        return f"computed/{index:02d}-{self.name}"


def check_needs(timeline: Sequence[TimelineEntry], where: str) -> None:
    """Refuse an entry that needs a phase or a computation which is not before it.

    Raises:
        RecipeError: there is one.
    """
    known: list[str] = []
    for index, entry in enumerate(timeline):
        for name in entry.needs():
            if name not in known:
                raise RecipeError(
                    f"{entry.describe()}, reads {name!r}, which is not before it",
                    where=f"timeline.{index} of {where}",
                    hint=f"before it are: {', '.join(known) or 'none'}; put what it reads into the timeline before",
                )
        if (name := getattr(entry, "name", None)) and entry.part(index):
            known.append(name)
