"""Held-out bits per byte of a run over the tokens it read and the seconds it trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lilliput.base.errors import RunError
from lilliput.base.run_folder import RunFolder
from lilliput.data.text_format import TEXT
from lilliput.recipe import unknown
from lilliput.report.records import PhaseRecord, RunRecord, read_run


@dataclass(frozen=True, kw_only=True)
class Point:
    """A measurement."""

    step: int
    """Step of its phase."""
    tokens: int
    """Text tokens read since the comparison begins: in all phases of a whole run, or in one."""
    seconds: float
    """Seconds of training steps since then, without measurements and pauses."""
    value: float
    """Bits per byte."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Held-out measurements of a run or of one phase."""

    name: str
    """Name as given by the user."""
    run: RunRecord
    points: tuple[Point, ...]
    """Points in order, at least one."""
    finished: bool


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A run, or a phase of one, as the command line has it: `runs/a` or `runs/a:pretrain`."""

    name: str
    run: RunRecord
    phase: str | None

    def corpora(self) -> list[str]:
        """Texts that it was measured on, the one that a release is judged by first."""
        units = self.run.units
        measured = {name for phase in self.phases() for line in phase.in_bits() for name in line["heldout"]}
        texts = [name for name in units if name in measured and units[name] == TEXT.unit]
        judged = {release.heldout for release in self.run.recipe.releases.values()}
        return sorted(texts, key=lambda name: name not in judged)

    def phases(self) -> list[PhaseRecord]:
        """Return those that are compared."""
        return [phase for phase in self.run.phases if self.phase in (None, phase.name)]

    def heldout(self, corpus: str) -> HeldOut:
        """Its curve on a text that it was measured on."""
        tokens, seconds, points = 0, 0.0, []
        phases = self.phases()
        for place, phase in enumerate(phases):
            clock, here = 0.0, {}
            end = phase.planned if phase.resumed_at is None or place + 1 == len(phases) else phase.resumed_at
            for line in phase.steps[:end]:  # the next phase goes on from there
                clock += line["seconds"]
                here[line["step"]] = (tokens + line["tokens"], seconds + clock)
            points += [
                Point(step=step, tokens=here[step][0], seconds=here[step][1], value=line["heldout"][corpus])
                for line in phase.in_bits()
                if corpus in line["heldout"] and (step := line["step"]) in here
            ]
            tokens, seconds = tokens + (phase.steps[:end][-1]["tokens"] if phase.steps else 0), seconds + clock
        finished = all(phase.steps and phase.steps[-1]["step"] == phase.planned for phase in phases)
        return HeldOut(name=self.name, run=self.run, points=tuple(points), finished=finished)

    def text(self, corpus: str) -> dict[str, Any]:
        """Which text there is, what of it is held out, and how it is cut into tokens."""
        record = RunFolder(self.run.folder).record(f"shards/{corpus}")
        begun, made = record.get("from", {}), record.get("outputs", {})
        return {"text": made.get("text_sha256"), "split": begun.get("split"), "tokenizer": begun.get("tokenizer")}


def folder_of(name: str) -> Path:
    """The run folder in the name of a run, or of one of its phases."""
    folder = "" if Path(name).is_dir() else name.rpartition(":")[0]
    return Path(folder or name)


def asked(name: str) -> Asked:
    """A run by its folder, or one of its phases after a colon.

    Raises:
        RunError: there is no such run.
        RecipeError: it has no such phase.
    """
    folder = folder_of(name)
    colon, phase = ("", "") if str(folder) == str(Path(name)) else (":", name.rpartition(":")[2])
    run = read_run(folder)
    names = [each.name for each in run.phases]
    if colon and phase not in names:
        raise unknown("phase", phase, names, f"{name}, a run of {run.recipe.name!r}")
    return Asked(name=name, run=run, phase=phase or None)


def common_corpus(runs: Sequence[Asked], corpus: str | None) -> str:
    """The text that all were measured on: the one of a name, else the one that the first run's release is judged by.

    Raises:
        RecipeError: one of them was not measured on it.
        RunError: there is none yet, or what two of them hold out of it is not the same.
    """
    first, *others = runs
    where = " and ".join(run.name for run in runs)
    common = [name for name in first.corpora() if all(name in other.corpora() for other in others)]
    if corpus is not None and corpus not in common:
        raise unknown("text", corpus, common or ["none yet"], f"--heldout, for {where}")
    if not common:
        raise RunError(
            f"the runs were not {'both' if len(runs) == 2 else 'all'} measured in bits per byte of one text",
            where=where,
            hint="train each to its first measurement; the recipe's `measure_every` says when it comes",
        )
    chosen = corpus or common[0]
    for other in others:
        if any(first.text(chosen)[key] != other.text(chosen)[key] for key in ("text", "split")):
            raise RunError(
                f"the held-out text of {chosen!r} is not the same in {'both runs' if len(runs) == 2 else other.name}",
                where=f"{first.name} and {other.name}",
                hint="compare runs of the same text and the same split, or choose another text with --heldout",
            )
    return chosen
