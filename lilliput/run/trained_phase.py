"""A trained phase of a run as growths see it: tensors are read when they are asked for, each file with its hash."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from lilliput.base.errors import RunError
from lilliput.base.files import sha256
from lilliput.base.run_folder import RunFolder
from lilliput.growth.growth import CheckpointTensors
from lilliput.train.checkpoint import at_step, load
from lilliput.train.phase import KEPT_FOLDER, Phase, StepPlan, phase_folder
from lilliput.train.resuming import CHECKPOINTS


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
