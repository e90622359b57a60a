"""Metric that a sweep compares: a held-out number at the end of a phase, read from the run of a variant."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lilliput.base.errors import DivergenceError, RecipeError, RunError, reading
from lilliput.base.files import read_json, write_json
from lilliput.base.run_folder import RunFolder
from lilliput.base.spec import to_plain
from lilliput.data.formats import format_of
from lilliput.data.text_format import TEXT
from lilliput.objectives.objective import CROSS_ENTROPY
from lilliput.recipe import Recipe, unknown
from lilliput.sweep.axes import SweepAxis, Variant, variants
from lilliput.train.metrics_file import measured_of, read_metrics
from lilliput.train.phase import Phase, phase_folder

FAILURE = "failure.json"
"""File with the reason why a variant diverged. It would again, so it is not tried again while the file is there."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A held-out measurement; less is better."""

    phase: str
    corpus: str
    unit: str

    @property
    def name(self) -> str:
        """Return the name in the form of `--metric`."""
        return f"{self.phase}.{self.corpus}"

    def to_plain(self) -> dict[str, str]:
        """Return it as JSON values."""
        return {"name": self.name, "phase": self.phase, "corpus": self.corpus, "unit": self.unit, "better": "lower"}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """State of a variant."""

    value: float | None = None
    """Value of the metric, if its phase and those before it are trained."""
    seconds: float | None = None
    """Seconds of training steps, without preparation and measurements."""
    machine: str | None = None
    """Kind of device and precision that it was trained with."""
    texts: tuple[str, ...] = ()
    """Hashes of the token files that it was trained on."""
    failure: str | None = None

    @property
    def is_over(self) -> bool:
        """Return whether nothing is left to do."""
        return self.value is not None or self.failure is not None


def choose(recipe: Recipe, name: str | None) -> Metric:
    """The metric of a name; without one, bits per byte in the last phase that reads text.

    Where that phase reads several corpora, it is the one that a release is judged by, else the first.

    Raises:
        RecipeError: no phase measures this.
    """
    found = {metric.name: metric for metric in _metrics(recipe)}
    if name is not None:
        if name not in found:
            raise unknown("metric", name, list(found), f"--metric, for recipe {recipe.name!r}")
        return found[name]
    texts = [metric for metric in found.values() if metric.unit == TEXT.unit] or list(found.values())
    if not texts:
        raise unknown("phase", "any", ["none; give the recipe one"], f"recipe {recipe.name!r}")
    judged = {release.heldout for release in recipe.releases.values()}
    last = [metric for metric in texts if metric.phase == texts[-1].phase]
    return next((metric for metric in last if metric.corpus in judged), last[0])


def outcome(folder: Path, variant: Variant, metric: Metric) -> Outcome:
    """Return what became of a variant in its run folder so far; works while another process trains there.

    Raises:
        RunError: its metrics are damaged, or lack a measurement that was made.
    """
    with reading(folder, "put what is damaged back from a copy, or leave the variant out of the folder"):
        return _outcome(folder, variant, metric)


def _outcome(folder: Path, variant: Variant, metric: Metric) -> Outcome:
    run = RunFolder(folder)
    phases = {phase_folder(index, phase): phase for index, phase in variant.recipe.until(metric.phase).phases.items()}
    records = {name: run.record(name) for name in phases}
    if not all(record.get("done") for record in records.values()):
        failed = (folder / FAILURE).is_file()
        return Outcome(failure=read_json(folder / FAILURE)["what"] if failed else None)
    lines = {phases[name].name: read_metrics(folder / name / "metrics.jsonl") for name in phases}
    held = [line["heldout"] for line in measured_of(lines[metric.phase])]
    measured = [numbers[metric.corpus] for numbers in held if metric.corpus in numbers]
    if not measured:
        part = list(phases)[-1]
        raise RunError(
            f"the phase is finished, but {metric.corpus!r} was never measured",
            where=str(folder / part / "metrics.jsonl"),
            hint=f"put the file back from a copy, or train it again: lilliput clean {folder} --from {part}",
        )
    value = measured[-1]
    if not math.isfinite(value):
        return Outcome(failure=f"{metric.name} came out as {value}")
    origins = [record["from"] for record in records.values()]
    machine = origins[0]["machine"]
    return Outcome(
        value=value,
        seconds=sum(line.get("seconds", 0.0) for phase in lines.values() for line in phase),
        machine=f"{machine['device'].partition(':')[0]} {machine['precision']}",
        texts=tuple(sorted({text for origin in origins for text in origin["tokens"].values()})),
    )


def refuse_without_effect(recipe: Recipe, overs: Sequence[SweepAxis], metric: Metric) -> None:
    """Refuse to compare what cannot differ: a field that nothing until the metric is measured depends on.

    Args:
        recipe: what is varied.
        overs: settled.
        metric: what is compared.

    Raises:
        RecipeError: there is such a field; the metrics that it can change are named.
    """
    for over in overs:
        recipes = [variant.recipe for variant in variants(recipe, [over], [recipe.seed])]
        moved = [
            one.name
            for one in _metrics(recipe)
            if any(_rests_on(recipes[0], one) != _rests_on(other, one) for other in recipes)
        ]
        if metric.name not in moved:
            raise RecipeError(
                f"{over.path} cannot change {metric.name}, the metric compared",
                where=f"--over {over.path}",
                hint=f"compare a metric that it can change: --metric {' or '.join(moved)}" if moved else "leave it out",
            )


def record_failure(folder: Path, error: DivergenceError) -> None:
    """Note that a variant diverged."""
    write_json(folder / FAILURE, {"what": error.what, "where": error.where})


def _rests_on(recipe: Recipe, metric: Metric) -> Any:
    """Return what a metric depends on, but for the seed, as a JSON value."""
    part = recipe.until(metric.phase).without_releases()
    return to_plain([part.corpora, part.tokenizer, part.tokenizer_corpora, part.split, part.model, part.timeline])


def _unit(phase: Phase, unit: str) -> str:
    """The unit of the last measurement of a phase: of a corpus, or the headline of another objective."""
    headline = phase.stages[-1].objective.headline
    return unit if headline == CROSS_ENTROPY else headline


def _metrics(recipe: Recipe) -> list[Metric]:
    units = {name: format_of(corpus).unit for name, corpus in recipe.corpora.items()}
    return [
        Metric(phase=phase.name, corpus=corpus, unit=_unit(phase, units[corpus]))
        for phase in recipe.phases.values()
        for corpus in phase.reads()
    ]
