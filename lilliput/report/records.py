"""Reads the records of a run folder, read while another process may be writing there."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lilliput.base.errors import LilliputError, reading
from lilliput.base.files import read_json, verify_checksum
from lilliput.base.hub import reading_only
from lilliput.base.run_code import UntrustedCodeError
from lilliput.base.run_folder import RunFolder, no_run
from lilliput.data.formats import format_of
from lilliput.objectives.objective import CROSS_ENTROPY
from lilliput.recipe import Recipe, read_recipe, vocabulary_of
from lilliput.report.recipe_outline import Outline, read_outline
from lilliput.train.metrics_file import INCIDENTS, LIVE, Line, headline_of, measured_of, read_growing, steps_of
from lilliput.train.passes import passes, tokens_per_pass
from lilliput.train.phase import StepPlan
from lilliput.train.resuming import described

HINT = "put what is damaged in it back from a copy; `lilliput runs` lists other runs"


@dataclass(frozen=True, kw_only=True)
class PhaseRecord:
    """One phase, as far as it is."""

    name: str
    planned: int | None
    """Steps; None where that takes code which may not run."""
    parameters: int
    steps: list[Line]
    measured: list[Line]
    incidents: list[Line]
    begins: str | None = None
    """Point at which it resumes a phase, in words, if it does."""
    resumed_at: int | None = None
    """The step at which a later phase goes on."""

    @property
    def tokens(self) -> int:
        """Text tokens read."""
        return self.steps[-1]["tokens"] if self.steps else 0

    @property
    def seconds(self) -> float:
        """Return the seconds of training steps, without measurements and pauses."""
        return sum(line["seconds"] for line in self.steps)

    def unit(self, name: str, units: Mapping[str, str]) -> str:
        """Return the unit of the last held-out number of a name: the corpus's, or what an objective's headline is."""
        headlines = [headline_of(line) for line in self.measured if name in line["heldout"]]
        own = headlines and headlines[-1] != CROSS_ENTROPY
        return headlines[-1] if own else units.get(name.removesuffix(LIVE), "")

    def in_bits(self) -> "list[Line]":
        """Return the measurements that are of cross-entropy: of text, they are in bits per byte."""
        return [line for line in self.measured if headline_of(line) == CROSS_ENTROPY]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run."""

    folder: Path
    recipe: Recipe | Outline
    """The outline where the recipe has parts of its own whose code may not run."""
    machine: dict[str, Any] | None
    """Settled; None before training."""
    environment: dict[str, Any]
    phases: list[PhaseRecord]
    releases: list[tuple[str, dict[str, Any]]]
    """Names of those that were evaluated, with what was found: `scores`, `samples` and more."""
    computed: list[tuple[str, Any]]
    """Names of computations that are done, with what they came to."""

    @property
    def line(self) -> list[list[Line]]:
        """The steps that the last model took, by phase: those of a decay that a later phase replaced are not in it."""
        after = [bool(phase.steps) for phase in self.phases[1:]] + [False]
        return [
            phase.steps[: phase.resumed_at] if is_followed else phase.steps
            for phase, is_followed in zip(self.phases, after, strict=True)
        ]

    @property
    def passes(self) -> dict[str, float]:
        """Return the passes over each corpus that the last model has read; none where that takes hidden parts."""
        if not isinstance(self.recipe, Recipe):
            return {}
        folder = RunFolder(self.folder)
        sizes = {
            name: tokens_per_pass(corpus, folder.record(f"shards/{name}"))
            for name, corpus in self.recipe.corpora.items()
        }
        tokens = [steps[-1]["tokens"] if steps else 0 for steps in self.line]
        return passes(zip(self.recipe.phases.values(), tokens, strict=False), sizes)  # later phases have not begun

    @property
    def units(self) -> dict[str, str]:
        """Return the units of held-out numbers, by corpus."""
        return {name: _unit(self.folder, name, corpus) for name, corpus in self.recipe.corpora.items()}


def read_run(folder: Path) -> RunRecord:
    """Everything that a run folder says; nothing but its files is asked, no network and no code that may not run.

    Raises:
        RunError: it is no run, or a file in it is damaged.
    """
    if not (folder / "recipe.json").is_file():
        raise no_run(folder)
    with reading_only(), reading(folder, HINT, "the records of the run cannot be read"):
        return _run(folder)


def _run(folder: Path) -> RunRecord:
    try:
        recipe = read_recipe(folder).filled(vocabulary_of(RunFolder(folder)))
    except UntrustedCodeError:
        recipe = read_outline(folder)
        if recipe.is_longer:  # where a phase goes on, its schedule says, which may be hidden
            raise
    releases = [release.name for release in recipe.releases.values()]
    found = [(name, folder / "evals" / f"{name}.json") for name in releases]
    return RunRecord(
        folder=folder,
        recipe=recipe,
        machine=(_read(folder / "run.json") or {}).get("machine"),
        environment=_read(folder / "environment.json") or {},
        phases=list(_phases(folder, recipe)),
        releases=[(name, _read(path)) for name, path in found if path.is_file()],
        computed=_computed(folder),
    )


def _computed(folder: Path) -> list[tuple[str, Any]]:
    records = [(path, _read(path)) for path in sorted((folder / "parts").glob("computed.*.json"))]
    named = ((path.stem.partition("-")[2], record) for path, record in records)
    return [(name, record["outputs"]["value"]) for name, record in named if record["done"]]


def _unit(folder: Path, name: str, corpus: Any) -> str:
    """The unit of held-out numbers of a corpus; of a hidden one, the record of its token files says."""
    if corpus is None:
        return RunFolder(folder).record(f"shards/{name}").get("outputs", {}).get("unit", "")
    return format_of(corpus).unit


def _phases(folder: Path, recipe: Recipe | Outline) -> Any:
    shape: Any
    try:
        shape = recipe.model.shape
    except (AttributeError, LilliputError):  # a checkpoint that is not here any more
        shape = None
    for place, entry in enumerate(recipe.timeline):
        if (phase := recipe.phases.get(place)) is not None:
            inside = folder / "phases" / f"{place:02d}-{phase.name}"
            lines = read_growing(inside / "metrics.jsonl")
            yield PhaseRecord(
                name=phase.name,
                planned=phase.steps,
                parameters=shape.skeleton().parameter_counts()["total"] if shape else 0,
                steps=steps_of(lines),
                measured=measured_of(lines),
                incidents=read_growing(inside / INCIDENTS),
                **(_resuming(recipe, place) if isinstance(recipe, Recipe) else {}),
            )
        elif shape:
            shape = entry.shape(shape)


def _resuming(recipe: Recipe, place: int) -> dict[str, Any]:
    """Return where a phase resumes, and where a later one resumes from it."""
    entry, before = recipe.phases[place], recipe.phase_before(place)
    return {
        "begins": described(before[1]) if entry.resumes is not None and before else None,
        "resumed_at": StepPlan(entry).resumable if recipe.resumed_by(place) is not None else None,
    }


def continued(before: PhaseRecord, phase: PhaseRecord) -> PhaseRecord:
    """A phase that resumes another one with the steps that it resumes before its own, all counted from there on.

    Args:
        before: the phase that it resumes, itself continued where it resumes one.
        phase: as its own metrics have it, which begin again.
    """
    at = before.resumed_at or 0
    kept = [line for line in before.steps if line["step"] <= at]
    tokens = kept[-1]["tokens"] if kept else 0

    def moved(lines: list[Line]) -> list[Line]:
        return [line | {"step": line["step"] + at} for line in lines]

    def counted(lines: list[Line]) -> list[Line]:
        return [line | {"tokens": line["tokens"] + tokens} for line in moved(lines)]

    return replace(
        phase,
        steps=kept + counted(phase.steps),
        measured=[line for line in before.measured if line["step"] <= at] + counted(phase.measured),
        incidents=[
            *(line for line in before.incidents if line["step"] <= at),
            {"step": at, "incident": "resumed", "what": f"{phase.name} continues {phase.begins}"},
            *moved(phase.incidents),
        ],
        resumed_at=None if phase.resumed_at is None else at + phase.resumed_at,
    )


def _read(path: Path) -> Any:
    with reading(path, f"put it back from a copy, or remove it: lilliput run {path.parent}", "the file is damaged"):
        return verify_checksum(read_json(path)) if path.is_file() else None
