"""The seam for changes of the model itself, between phases: layers, vocabulary, or which weights go on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import tokenizers
from torch import Tensor

from lilliput.entry import TimelineEntry
from lilliput.model import LanguageModel

GROWTH = "growth"


CheckpointTensors = Mapping[str, Mapping[str, Tensor]]
"""`weights`, `average`, `optimizer` and what else a checkpoint holds, each by name."""


class EarlierPhase(Protocol):
    """A trained phase; what it holds is read from the disk when it is asked for, compared with its hash, on the CPU.

    Each method raises a `RunError` where something is damaged, or was cleaned away.
    """

    @property
    def kept_steps(self) -> tuple[int, ...]:
        """The steps whose checkpoints `Phase.keep` kept."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """The last weights by name."""
        ...

    def average(self) -> dict[str, Tensor]:
        """Their average by name; empty without one."""
        ...

    def optimizer(self) -> dict[str, Tensor]:
        """The optimizer's state at the end, by name, from the last checkpoint."""
        ...

    def kept(self, step: int) -> CheckpointTensors:
        """The checkpoint after one of the kept steps."""
        ...


@dataclass(frozen=True, kw_only=True)
class Computed:
    """The result of a computation."""

    value: Any
    """The value it returned."""
    folder: Path
    """Its files, compared with their hashes."""


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """The model and all that a timeline carries from one entry to the next."""

    model: LanguageModel
    tokenizer: tokenizers.Tokenizer
    average: dict[str, Tensor]
    """Averaged weights of the phase before, by name; empty without one."""
    earlier: Mapping[str, EarlierPhase] = field(default_factory=dict)
    """The phases until here by name, the last one last."""
    optimizer: Callable[[], Mapping[str, Tensor]] | None = None
    """Returns the optimizer's state that the next phase begins with, by name; None for a fresh one."""
    computed: Mapping[str, Computed] = field(default_factory=dict)
    """Results of the computations so far, by name."""


class Growth(TimelineEntry, Protocol):
    """A growth as recipes write it; it inherits this."""

    kind: ClassVar[str] = GROWTH

    def grow(self, lineage: Lineage, seed: int) -> Lineage:
        """The lineage with another model; a function of the lineage and the seed."""
        ...
