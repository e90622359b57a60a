"""The weights and state that a phase begins with."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lilliput.model import LanguageModel, copy_weights
from lilliput.train import checkpoint
from lilliput.train.checkpoint import Checkpoint
from lilliput.train.phase import Phase
from lilliput.train.trainable import OWNED, Trainable

Begin = Callable[[], Checkpoint]
"""Returns the state that a phase begins with if it has no checkpoint: all of an earlier phase's, or its optimizer's."""


def build_trainable(model: LanguageModel, phase: Phase, seed: int, folder: Path, begin: Begin | None) -> Trainable:
    """Build the objectives of a phase around its model, with the weights that the phase begins with.

    Args:
        model: with those weights, unless `begin` has others.
        phase: to be trained.
        seed: of the phase.
        folder: of its checkpoints.
        begin: for a phase that resumes another one, or takes over an optimizer's state.
    """
    objectives = [stage.objective for stage in phase.stages]
    if begin is None:
        return Trainable.of_phase(model, objectives, seed)
    if checkpoint.has_any(folder):
        trainable = Trainable.of_phase(model, objectives, seed)
        if not trainable.keeps_first_weights:
            return trainable
    copy_weights(model, begin().tensors.get("weights", dict(model.named_parameters())))
    return Trainable.of_phase(model, objectives, seed)


def state_for(trainable: Trainable, state: Checkpoint) -> Checkpoint:
    """Return the state of an earlier phase without what its objectives owned, if this phase has other objectives."""
    if state.tensors.get("objectives", {}).keys() == trainable.owned_tensors().keys():
        return state
    kinds = {
        kind: {name: one for name, one in tensors.items() if not name.startswith(OWNED)}
        for kind, tensors in state.tensors.items()
    }
    return replace(state, tensors=kinds | {"objectives": trainable.owned_tensors()})
