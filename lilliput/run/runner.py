"""The runner of a timeline: trains phases, grows models, makes releases, unless they are done already.

Every rank runs the timeline. Where ranks share a run folder, the first one writes, and the others read what it wrote.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from lilliput.base.files import hash_of
from lilliput.computations.computation import COMPUTATION
from lilliput.growth.growth import GROWTH, Lineage
from lilliput.model import copy_weights
from lilliput.publish.lineage import after_part
from lilliput.recipe import Release
from lilliput.run.compute import computation_step
from lilliput.run.context import RunContext
from lilliput.run.phase_lines import passes, units
from lilliput.run.phase_logger import phase_logger
from lilliput.run.prepare import Preparation
from lilliput.run.release import Publisher
from lilliput.run.reproducibility import untrained
from lilliput.run.same_everywhere import check_same_inputs, check_same_weights
from lilliput.run.samples import sample_writer
from lilliput.run.steps import Reached, beginning, check_steps, growth_step, release_step
from lilliput.run.trained_phase import TrainedPhase, begin_of, inputs_of, is_intact, write_trained
from lilliput.tokenizer.specials import vocabulary_size
from lilliput.train.loop import Trainer
from lilliput.train.phase import KEPT_FOLDER, Phase, phase_folder
from lilliput.train.resuming import BEFORE_DECAY, CHECKPOINTS
from lilliput.train.validation import make_validator


class Runner:
    """Runs a timeline once.

    Args:
        context: of the run.
        publisher: makes releases; None for no releases.
        trains: whether to train phases, or only to load them.
    """

    def __init__(self, context: RunContext, publisher: Publisher | None = None, *, trains: bool = True):
        self._context, self._run, self._recipe = context, context.run, context.recipe
        self._publisher, self._trains = publisher, trains
        asking = replace(context.asking, device=str(context.machine.device))
        assert isinstance(context.machine.threads, int), "the machine is resolved"
        self._preparation = Preparation(
            context.run, context.recipe, context.console, asking=asking, processes=context.machine.threads
        )

    def run_timeline(self, until: str | None = None) -> tuple[Path, ...]:
        """Carry out every entry that is not done, up to the phase `until`, and return the folders of releases."""
        context, preparation = self._context, self._preparation
        steps = {
            Phase.kind: self.train_phase,
            GROWTH: growth_step(context),
            COMPUTATION: computation_step(context, preparation, computes=self._trains),
            Release.kind: release_step(context, preparation, self._publisher),
        }
        part = self._recipe.until(until) if until else self._recipe
        check_steps(part, steps)
        with context.written_first():
            tokenizer = preparation.everything(until)
        check_same_inputs(context, until)
        recipe = self._recipe.filled(vocabulary_size(tokenizer))
        reached = beginning(recipe, tokenizer, context.machine)
        for index, entry in enumerate(part.timeline):
            reached = steps[entry.kind](index, entry, reached)
        return reached.releases

    def train_phase(self, index: int, phase: Phase, reached: Reached) -> Reached:
        """Train a phase unless it is trained, and return what is reached after it.

        Raises:
            RunError: it is untrained, and this runner only loads; or it was trained from other inputs.
        """
        context, name = self._context, phase_folder(index, phase)
        tokens = self._preparation.tokens_of(phase, reached.lineage)
        inputs = inputs_of(context, index, phase, reached.provenance, tokens)
        if not self._trains:
            if (outputs := self._run.outputs(name, inputs, is_intact)) is None:
                raise untrained(f"the phase {phase.name!r}", self._run.path)
            return self._after(index, phase, reached, inputs, outputs)
        measure = make_validator(tokens, phase.length, context.machine)  # first: it refuses what cannot be measured
        self._run.refuse_change(name, inputs)
        trainer: Trainer | None = None
        with context.part(name, inputs, is_intact) as part:
            if part.is_missing:
                context.note_changes(phase.name, name)
                trainer = self._trainer(part.folder, index, phase, reached.lineage, tokens)
                bytes_per_token = phase.data.bytes_per_token(tokens)
                average = trainer.train(phase_logger(context, phase, part.folder, bytes_per_token), measure)
                part.outputs = write_trained(context, index, phase, reached.lineage.model, average, bytes_per_token)
        check_same_weights(context, phase.name, part.outputs)
        if trainer is not None and trainer.shutdown.requested:  # in the last step, or while it was measured
            context.say(f"{phase.name} is trained; the same command resumes after it")
            trainer.shutdown.exit()
        return self._after(index, phase, reached, inputs, part.outputs)

    def _trainer(self, folder: Path, index: int, phase: Phase, lineage: Lineage, tokens: dict[str, Any]) -> Trainer:
        context, reader = self._context, phase.data.open(tokens)
        context.say(f"{phase.name}: {passes(self._recipe, phase, reader.tokens_available)}")
        context.say(f"{phase.name}: {units(self._recipe, phase)}")
        return Trainer(
            lineage.model,
            phase,
            reader,
            context.machine,
            folder=folder / CHECKPOINTS,
            seed=context.seed(index),
            report=context.say,
            ranks=context.ranks,
            before_decay=folder / BEFORE_DECAY,
            kept=folder / KEPT_FOLDER,
            begin=begin_of(context, index, phase, lineage),
            write_samples=sample_writer(phase, tokens, writes=context.writes),
        )

    def _after(
        self, index: int, phase: Phase, reached: Reached, inputs: dict[str, Any], outputs: dict[str, Any]
    ) -> Reached:
        lineage, final = reached.lineage, self._run.path / phase_folder(index, phase) / "final"
        copy_weights(lineage.model, load_file(final / "weights.safetensors"))
        average = load_file(final / "average.safetensors", device=str(self._context.machine.device))
        self._context.say(f"{index:02d} {phase.name}: {outputs['steps']:,} steps, weights {outputs['weights'][:12]}")
        earlier = {**lineage.earlier, phase.name: TrainedPhase(self._run, index, phase)}
        return replace(
            reached,
            lineage=replace(lineage, average=average, earlier=earlier, optimizer=None),
            provenance=after_part(inputs["before"], hash_of(inputs)),
            phases=(*reached.phases, phase.part(index)),
        )
