"""The context of a run: everything that each of its steps is given."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from lilliput.base.errors import LilliputError
from lilliput.base.run_folder import IsIntact, Part, RunFolder
from lilliput.publish.lineage import phase_seed
from lilliput.recipe import Recipe
from lilliput.report.page import REPORT, write_report
from lilliput.run.asking import Asking
from lilliput.run.reproducibility import check_unchanged
from lilliput.train.machine import Machine
from lilliput.train.ranks import OneRank, Ranks


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """A recipe, the folder of its run, and what carries it out."""

    run: RunFolder
    """Open on ranks that write it; others read it."""
    recipe: Recipe
    machine: Machine
    """Resolved."""
    console: Console
    ranks: Ranks = OneRank()
    loggers: Sequence[str] = ()
    """Names of other programs that are shown the numbers of training."""
    allow_change: bool = False
    """True if training may resume on another machine, or with other versions, than it began with."""
    asking: Asking = Asking()
    """Means to ask teachers."""

    @property
    def writes(self) -> bool:
        """True if this rank writes the run: the first of those that share one, each of those with one of its own."""
        return self.ranks.writes

    @property
    def publishes(self) -> bool:
        """True if this rank makes releases."""
        return self.ranks.rank == 0

    @contextmanager
    def written_first(self) -> Iterator[None]:
        """Return a context that the rank which writes a run runs through before those that read it."""
        if not self.writes:
            self.ranks.barrier()
        yield
        if self.writes:
            self.ranks.barrier()

    def seed(self, index: int) -> int:
        """Return the seed of an entry of the timeline."""
        return phase_seed(self.recipe.seed, index)

    def say(self, line: str) -> None:
        """Print a line."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def note_changes(self, title: str, part: str) -> None:
        """Note in the run, and say, what differs from when training began, before a part of the run is made here.

        Args:
            title: of the part, for people.
            part: its name in the run.

        Raises:
            RunError: the machine or a version differs, and may not.
        """
        if not self.writes:
            return
        for change in check_unchanged(self.run, self.machine, part, allow_change=self.allow_change):
            self.say(f"{title}: resumes although {change}")

    def report(self) -> None:
        """Write the run's page again; a page that cannot be written stops no training."""
        try:
            write_report(self.run.path)
        except (LilliputError, OSError) as error:
            self.say(f"no {REPORT}: {error}")

    @contextmanager
    def part(self, name: str, inputs: Any, is_intact: IsIntact) -> Iterator[Part]:
        """Open a part of the run that all ranks make together; see `RunFolder.part`."""
        if self.writes:
            with self.run.part(name, inputs, is_intact) as part:
                yield part
            self.ranks.barrier()
            return
        outputs = self.run.outputs(name, inputs, is_intact)
        part = Part(folder=self.run.path / name, is_missing=outputs is None)
        yield part
        self.ranks.barrier()
        part.outputs = self.run.outputs(name, inputs, is_intact)
