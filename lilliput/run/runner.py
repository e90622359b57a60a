"""The runner of a timeline: phases trained, models grown, releases made, each as far as it is not there yet.

The first worker writes; those beside it train along and read what it has written.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from safetensors.torch import load_file
from tokenizers import Tokenizer

from lilliput.base.errors import LilliputError
from lilliput.base.files import hash_of, sha256
from lilliput.base.run_folder import RunFolder
from lilliput.base.spec import to_plain
from lilliput.computations.computation import COMPUTATION
from lilliput.evals.question_files import QuestionSource
from lilliput.growth.growth import GROWTH, Lineage
from lilliput.model import copy_weights
from lilliput.publish.lineage import after_part, phase_seed
from lilliput.recipe import Recipe, Release
from lilliput.report.loss_plot import plot_loss
from lilliput.report.page import REPORT, write_report
from lilliput.run.compute import computation_step
from lilliput.run.phase_lines import passes, resuming, units
from lilliput.run.prepare import Preparation
from lilliput.run.release import Publisher
from lilliput.run.reproducibility import began_on, check_unchanged, untrained
from lilliput.run.steps import Reached, check_steps, growth_step, recorded_code, release_step
from lilliput.run.trained_phase import TrainedPhase
from lilliput.tokenizer.bpe import tokenizer_hash
from lilliput.tokenizer.specials import vocabulary_size
from lilliput.train.checkpoint import Checkpoint, write_tensors
from lilliput.train.loggers.logger import LoggerGroup, RunInfo
from lilliput.train.loop import train_phase
from lilliput.train.machine import Machine
from lilliput.train.metrics_file import last_step
from lilliput.train.metrics_log import MetricsLogger, NullLogger
from lilliput.train.micro_batches import read_rows
from lilliput.train.phase import KEPT_FOLDER, Phase, StepPlan, phase_folder
from lilliput.train.ranks import OneRank, Ranks
from lilliput.train.resuming import BEFORE_DECAY, CHECKPOINTS, described, resume_point
from lilliput.train.rollback import read_incidents
from lilliput.train.validation import Measure, make_validator


def prepare(preparation: Preparation, recipe: Recipe, until: str | None) -> Tokenizer:
    """Make the token files first of all: a damaged text is not found after a week of training.

    Files are those of the whole recipe also where it ends early, so that it can be taken up again.
    """
    if until is None:
        return preparation.everything()
    tokenizer = first = preparation.tokenizer()
    for entry in recipe.until(until).without_releases().timeline:
        for name in entry.reads():
            preparation.tokens(name, tokenizer)
        tokenizer = entry.retokenize(tokenizer)
    return first


class Runner:
    """Runs a timeline once."""

    def __init__(
        self,
        run: RunFolder,
        recipe: Recipe,
        machine: Machine,
        console: Console,
        ranks: Ranks = OneRank(),
        *,
        sinks: Sequence[str] = (),
        allow_change: bool = False,
    ):
        self.machine, self.ranks = machine, ranks
        self._run, self._recipe, self._console = run, recipe, console
        self._sinks, self._allow_change = sinks, allow_change
        self._preparation = Preparation(run, recipe, console)

    def publisher(self, questions: QuestionSource) -> Publisher | None:
        """Who makes releases, having looked whether it can."""
        publisher = Publisher(self._run, self._recipe, self.machine, self._console, questions)
        publisher.check()
        return publisher

    def run_timeline(
        self, publisher: Publisher | None, until: str | None = None, *, train: bool = True
    ) -> tuple[Path, ...]:
        """Carry out every entry as far as it is not, and return the folders of releases.

        Args:
            publisher: makes releases; None for none.
            until: the last phase; None for the whole timeline.
            train: whether phases are trained; else they are loaded.
        """
        steps = {
            Phase.kind: self.train_phase if train else self.load_trained_phase,
            GROWTH: growth_step(self._recipe, self._say),
            COMPUTATION: computation_step(
                self._run,
                self._recipe,
                self._preparation,
                self.machine,
                self._first,
                self._say,
                computes=train and self.ranks.writes,
                allow_change=self._allow_change,
            ),
            Release.kind: release_step(self._preparation, publisher, self._report),
        }
        part = self._recipe.until(until) if until else self._recipe
        check_steps(part, steps)
        with self._first():
            tokenizer = prepare(self._preparation, self._recipe, until)
        recipe = self._recipe.filled(vocabulary_size(tokenizer))
        model = recipe.model.build(recipe.seed).to(self.machine.device)
        reached = Reached(
            lineage=Lineage(model=model, tokenizer=tokenizer, average={}),
            provenance={
                "model": recipe.model.identity(),
                "seed": recipe.seed,
                "tokenizer": tokenizer_hash(tokenizer),
            },
        )
        for index, entry in enumerate(part.timeline):
            reached = steps[entry.kind](index, entry, reached)
        return reached.releases

    def _provenance(self, index: int, phase: Phase, reached: Reached) -> dict[str, Any]:
        """What led to a phase: of one that it resumes, only a part of the steps."""
        before = self._recipe.phase_before(index)
        if phase.resumes is None or before is None:
            return reached.provenance
        return reached.provenance | {"steps": StepPlan(before[1]).resumable}

    def train_phase(self, index: int, phase: Phase, reached: Reached) -> Reached:
        """Train a phase as far as it is not, and return what is reached after it."""
        name = phase_folder(index, phase)
        tokens = {corpus: self._preparation.tokens(corpus, reached.lineage.tokenizer) for corpus in phase.reads()}
        inputs = self._inputs(index, phase, reached, tokens)
        # Refuses what cannot be measured before anything begins.
        measure = make_validator(tokens, phase.length, self.machine)
        self._run.refuse_change(name, inputs)
        with self._first(), self._run.part(name, inputs, _is_intact) as part:
            if part.is_missing:
                for change in check_unchanged(self._run, self.machine, name, allow_change=self._allow_change):
                    self._say(f"{phase.name}: resumes although {change}")
                part.outputs = self._train(part.folder, index, phase, reached.lineage, tokens, measure)
        return self._after(index, phase, reached, inputs, part.outputs)

    @contextmanager
    def _first(self) -> Iterator[None]:
        """What the first worker does before the others look at it."""
        yield
        self.ranks.barrier()

    def load_trained_phase(self, index: int, phase: Phase, reached: Reached) -> Reached:
        """Return what is reached after a phase that is trained already.

        Raises:
            RunError: it is not.
        """
        tokens = {corpus: self._preparation.tokens(corpus, reached.lineage.tokenizer) for corpus in phase.reads()}
        inputs = self._inputs(index, phase, reached, tokens)
        outputs = self._run.outputs(phase_folder(index, phase), inputs, _is_intact)
        if outputs is None:
            raise untrained(f"the phase {phase.name!r}", self._run.path)
        return self._after(index, phase, reached, inputs, outputs)

    def _inputs(self, index: int, phase: Phase, reached: Reached, tokens: dict[str, Any]) -> dict[str, Any]:
        return {
            "before": self._provenance(index, phase, reached),
            "phase": to_plain(phase),
            "seed": self._seed(index),
            "machine": began_on(self._run),
            "tokens": {name: files.index["sha256"] for name, files in tokens.items()},
        } | recorded_code(self._run, self._recipe, index, phase_folder(index, phase))

    def _train(
        self, folder: Path, index: int, phase: Phase, lineage: Lineage, tokens: dict[str, Any], measure: Measure
    ) -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        plan = StepPlan(phase)
        reader, bytes_per_token = phase.data.open(tokens), phase.data.bytes_per_token(tokens)
        self._say(f"{phase.name}: {passes(self._recipe, phase, reader.tokens_available)}")
        self._say(f"{phase.name}: {units(self._recipe, phase)}")
        metrics = folder / "metrics.jsonl"

        left_at = last_step(metrics)

        def watch(step: int) -> MetricsLogger:
            nonlocal left_at
            if left_at:
                self._say(f"{phase.name}: {resuming(step, plan.steps, left_at)}")
                left_at = 0  # where it goes back to a checkpoint later, that is told already
            shown = RunInfo(run=self._run.path, recipe=self._recipe.name, phase=folder.name, step=step)
            return MetricsLogger(
                metrics,
                self._console,
                phase.name,
                plan.steps,
                step,
                bytes_per_token,
                device=self.machine.device,
                after=self._report,
                feed=LoggerGroup(self._sinks, shown, self._say),
            )

        average = train_phase(
            lineage.model,
            phase,
            reader,
            self.machine,
            watch=watch,
            measure=measure,
            **self._settings(index, phase, folder),
        )
        plot_loss(metrics, folder / "loss.png", phase.name, bytes_per_token)
        with self._run.replacing(f"{phase_folder(index, phase)}/final") as partial:
            write_tensors(partial / "weights.safetensors", dict(lineage.model.named_parameters()))
            write_tensors(partial / "average.safetensors", average)
            return {
                "weights": sha256(partial / "weights.safetensors"),
                "average": sha256(partial / "average.safetensors"),
                "steps": plan.steps,
                "incidents": read_incidents(folder / CHECKPOINTS),
                "micro_batches": read_rows(folder / CHECKPOINTS),
            }

    def _settings(self, index: int, phase: Phase, folder: Path) -> dict[str, Any]:
        """What training is given on every rank alike."""
        return {
            "folder": folder / CHECKPOINTS,
            "seed": self._seed(index),
            "report": self._say,
            "ranks": self.ranks,
            "keep": folder / BEFORE_DECAY,
            "kept": folder / KEPT_FOLDER,
            "begin": self._beginning(index, phase),
        }

    def _beginning(self, index: int, phase: Phase) -> Callable[[], Checkpoint] | None:
        """What gives the state that a phase resumes, if it resumes one."""
        before = self._recipe.phase_before(index)
        if phase.resumes is None or before is None:
            return None

        def begin() -> Checkpoint:
            self._say(f"{phase.name}: goes on {described(before[1])}")
            return resume_point(before[1], self._run.path / phase_folder(*before))

        return begin

    def _report(self) -> None:
        """Bring the page of the run up to date, which no training is worth being stopped for."""
        try:
            write_report(self._run.path)
        except (LilliputError, OSError) as error:
            self._say(f"no {REPORT}: {error}")

    def _after(
        self, index: int, phase: Phase, reached: Reached, inputs: dict[str, Any], outputs: dict[str, Any]
    ) -> Reached:
        lineage, final = reached.lineage, self._run.path / phase_folder(index, phase) / "final"
        copy_weights(lineage.model, load_file(final / "weights.safetensors"))
        average = load_file(final / "average.safetensors", device=str(self.machine.device))
        self._say(f"{index:02d} {phase.name}: {outputs['steps']:,} steps, weights {outputs['weights'][:12]}")
        earlier = {**lineage.earlier, phase.name: TrainedPhase(self._run, index, phase)}
        return replace(
            reached,
            lineage=replace(lineage, average=average, earlier=earlier),
            provenance=after_part(self._provenance(index, phase, reached), hash_of(inputs)),
            phases=(*reached.phases, phase.part(index)),
        )

    def _seed(self, index: int) -> int:
        return phase_seed(self._recipe.seed, index)

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class OtherRank(Runner):
    """The runner of a rank that is not the first: it trains, too, and reads what that one has written."""

    def publisher(self, questions: QuestionSource) -> None:
        return None

    @contextmanager
    def _first(self) -> Iterator[None]:
        self.ranks.barrier()
        yield

    def train_phase(self, index: int, phase: Phase, reached: Reached) -> Reached:
        name = phase_folder(index, phase)
        tokens = {corpus: self._preparation.tokens(corpus, reached.lineage.tokenizer) for corpus in phase.reads()}
        inputs = self._inputs(index, phase, reached, tokens)
        if self._run.outputs(name, inputs, _is_intact) is None:
            train_phase(
                reached.lineage.model,
                phase,
                phase.data.open(tokens),
                self.machine,
                watch=lambda step: NullLogger(),  # type: ignore[arg-type]
                measure=make_validator(tokens, phase.length, self.machine),
                **self._settings(index, phase, self._run.path / name),
            )
        with self._first():
            outputs = self._run.outputs(name, inputs, _is_intact)
        assert outputs is not None, "the first rank has just written it"
        return self._after(index, phase, reached, inputs, outputs)


def _is_intact(folder: Path, outputs: dict[str, Any]) -> bool:
    """Whether a phase's last weights are what was written; if not, they are made again from its last checkpoint."""
    if not isinstance(outputs["steps"], int):
        raise TypeError("`steps` is no whole number")
    files = {name: folder / "final" / f"{name}.safetensors" for name in ("weights", "average")}
    return all(file.is_file() and sha256(file) == outputs[name] for name, file in files.items())
