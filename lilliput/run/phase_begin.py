"""The state that a phase of a run begins with, besides the model: another phase's, or an optimizer's alone."""

from lilliput.growth.growth import Lineage
from lilliput.run.context import RunContext
from lilliput.train.begin import Begin
from lilliput.train.checkpoint import Checkpoint, Progress
from lilliput.train.phase import Phase, phase_folder
from lilliput.train.resuming import resume_point


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
        folder = context.run.path / phase_folder(*before)
        return lambda: resume_point(before[1], folder, lambda line: context.say(f"{phase.name}: {line}"))
    if optimizer is None:
        return None
    return lambda: Checkpoint(progress=Progress(), tensors={"optimizer": optimizer()})
