"""A trained phase of a run: how it is recorded, and what growths and later phases read of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from lilliput.base.errors import RunError
from lilliput.base.files import sha256
from lilliput.base.run_folder import RunFolder
from lilliput.base.spec import to_plain
from lilliput.growth.growth import GROWTH, CheckpointTensors, Lineage
from lilliput.model import LanguageModel
from lilliput.recipe import Recipe
from lilliput.report.loss_plot import plot_loss
from lilliput.run.context import RunContext
from lilliput.run.phase_logger import METRICS
from lilliput.run.reproducibility import began_on
from lilliput.run.steps import recorded_code
from lilliput.train.begin import Begin
from lilliput.train.checkpoint import Checkpoint, Progress, at_step, load, write_tensors
from lilliput.train.micro_batches import read_rows
from lilliput.train.phase import KEPT_FOLDER, Phase, StepPlan, phase_folder
from lilliput.train.resuming import CHECKPOINTS, resumed_state
from lilliput.train.rollback import read_incidents


def write_trained(
    context: RunContext,
    index: int,
    phase: Phase,
    model: LanguageModel,
    average: Mapping[str, Tensor],
    bytes_per_token: float | None,
) -> dict[str, Any] | None:
    """Write what a phase has trained, and return what the run records of it; None on ranks that write nothing.

    Args:
        context: of the run.
        index: of the phase in the timeline.
        phase: trained to its end.
        model: with its weights.
        average: the averaged weights by name, empty if there are none.
        bytes_per_token: of its text; None where bits per byte are no measure.
    """
    if not context.writes:
        return None
    folder = context.run.path / phase_folder(index, phase)
    plot_loss(folder / METRICS, folder / "loss.png", phase.name, bytes_per_token)
    with context.run.replacing(f"{phase_folder(index, phase)}/final") as partial:
        write_tensors(partial / "weights.safetensors", dict(model.named_parameters()))
        write_tensors(partial / "average.safetensors", average)
        return {
            "weights": sha256(partial / "weights.safetensors"),
            "average": sha256(partial / "average.safetensors"),
            "steps": StepPlan(phase).steps,
            "incidents": read_incidents(folder / CHECKPOINTS),
            "micro_batches": read_rows(folder / CHECKPOINTS),
        } | grown_before(context.recipe, index)


def grown_before(recipe: Recipe, index: int) -> dict[str, Any]:
    """Return `grown`: each growth before a phase, and the phase, steps and tokens it came after; empty without one."""
    grown, last = [], None
    for place, entry in enumerate(recipe.timeline[:index]):
        if isinstance(entry, Phase):
            last = {"phase": entry.name, "steps": entry.steps, "tokens": int(entry.tokens)}
        elif entry.kind == GROWTH:
            grown.append({"index": place, "growth": to_plain(entry), "after": last})
    return {"grown": grown} if grown else {}


def begin_of(context: RunContext, index: int, phase: Phase, lineage: Lineage) -> Begin | None:
    """Return what reads the state that a phase begins with; None for a phase that begins with the model alone.

    Args:
        context: of the run.
        index: of the phase in the timeline.
        phase: about to be trained.
        lineage: before it.

    The result raises a `RunError` where the state was cleaned away or is damaged.
    """
    before, optimizer = context.recipe.phase_before(index), lineage.optimizer
    if phase.resumes is not None and before is not None:
        folder, say = context.run.path / phase_folder(*before), lambda line: context.say(f"{phase.name}: {line}")
        return lambda: resumed_state(phase, before[1], folder, say)
    if optimizer is None:
        return None
    return lambda: Checkpoint(progress=Progress(), tensors={"optimizer": optimizer()})


def inputs_of(
    context: RunContext, index: int, phase: Phase, provenance: dict[str, Any], tokens: Mapping[str, Any]
) -> dict[str, Any]:
    """Return everything that decides what a phase trains, as the run records it.

    Args:
        context: of the run.
        index: of the phase in the timeline.
        phase: to be trained.
        provenance: of what it begins with.
        tokens: files that it reads, by corpus.
    """
    before = context.recipe.phase_before(index)
    if phase.resumes is not None and before is not None:  # how many of that one's steps led to it
        provenance = provenance | {"steps": StepPlan(before[1]).resumable}
    return {
        "before": provenance,
        "phase": to_plain(phase),
        "seed": context.seed(index),
        "machine": began_on(context.run),
        "tokens": {name: files.index["sha256"] for name, files in tokens.items()},
    } | recorded_code(context.run, context.recipe, index, phase_folder(index, phase))


def is_intact(folder: Path, outputs: dict[str, Any]) -> bool:
    """Return whether the last weights of a phase are what was written; if not, its last checkpoint has them."""
    if not isinstance(outputs["steps"], int):
        raise TypeError("`steps` is no whole number")
    files = {name: folder / "final" / f"{name}.safetensors" for name in ("weights", "average")}
    return all(file.is_file() and sha256(file) == outputs[name] for name, file in files.items())


class TrainedPhase:
    """The phase at an index of a run's timeline, trained to its end; an `EarlierPhase`."""

    def __init__(self, run: RunFolder, index: int, phase: Phase):
        self._run, self._phase, self._plan = run, phase, StepPlan(phase)
        self._part = phase_folder(index, phase)
        self._folder = run.path / self._part

    @property
    def kept_steps(self) -> tuple[int, ...]:
        return self._plan.kept_steps

    def weights(self) -> dict[str, Tensor]:
        return load_file(self.verified("weights"))

    def average(self) -> dict[str, Tensor]:
        return load_file(self.verified("average"))

    def optimizer(self) -> dict[str, Tensor]:
        path = at_step(self._folder / CHECKPOINTS, self._plan.steps)
        what = f"the optimizer's state at the end of {self._phase.name!r}"
        return dict(self._checkpoint(path, what)["optimizer"])

    def kept(self, step: int) -> CheckpointTensors:
        if step not in self.kept_steps:
            listed = ", ".join(map(str, self.kept_steps)) or "none"
            raise RunError(
                f"{self._phase.name!r} kept no checkpoint of step {step:,}",
                where=str(self._folder),
                hint=f"it kept those of: {listed}; Phase(keep=...) says which",
            )
        path = at_step(self._folder / KEPT_FOLDER, step)
        return self._checkpoint(path, f"the kept checkpoint of step {step:,} of {self._phase.name!r}")

    def verified(self, name: str) -> Path:
        """The file of last `weights` or of their `average`.

        Raises:
            RunError: it is missing, or not what was trained.
        """
        file = self._folder / "final" / f"{name}.safetensors"
        if not file.is_file() or sha256(file) != self._run.record(self._part)["outputs"][name]:
            raise RunError(
                f"{file.name} is not the file that was trained" if file.is_file() else f"{file.name} is missing",
                where=str(file.parent),
                hint=f"train it again from its last checkpoint: lilliput train {self._run.path}",
            )
        return file

    def _checkpoint(self, path: Path, what: str) -> CheckpointTensors:
        hint = (
            f"put it back from a copy, leave out the growth that reads it, or train the phase again: "
            f"lilliput clean {self._run.path} --from {self._part}"
        )
        if not (path / "manifest.json").is_file():
            raise RunError(f"{what} is not there: it was cleaned away", where=str(path), hint=hint)
        try:
            return load(path).tensors
        except RunError as error:
            raise RunError(f"{what}: {error.what}", where=error.where, hint=hint) from error
