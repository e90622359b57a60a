"""The model and the phases of a recipe, so small that a check takes seconds, with the specs of parts as they are."""

from dataclasses import replace
from math import ceil

import torch

from lilliput.base.units import Share, Steps, Tokens
from lilliput.model import ModelSpec
from lilliput.nn.per_layer import PerLayer
from lilliput.shrink import in_proportion, in_rows_of
from lilliput.train.phase import Phase, StepPlan, tokens_per_position

VOCAB, LAYERS = 64, 4
"""Four layers can be stacked, turned in every second one, and cut into four blocks."""
WIDE = 128
"""A model that is no wider stays as wide as it is."""
WIDTHS = (64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Widths to try."""
LENGTH, ROWS, STEPS = 32, 4, 6


def small_model(spec: ModelSpec) -> ModelSpec:
    """The shape with few layers, whole patterns of a hybrid, and as narrow as its mixers let it be."""
    pattern = len(spec.mixer.pattern) if isinstance(spec.mixer, PerLayer) else 1
    layers = min(spec.layers, pattern * ceil(LAYERS / pattern))
    small = replace(spec, vocab=min(spec.vocab, VOCAB), layers=layers)
    narrower = [width for width in WIDTHS if width < spec.width] if spec.width > WIDE else []
    return next((fit for width in narrower if _runs(fit := replace(small, width=width))), small)


def _runs(spec: ModelSpec) -> bool:
    try:
        with torch.no_grad():
            spec.build(seed=0)(torch.zeros(1, 4, dtype=torch.int64))
    except Exception:  # of any mixer: heads that do not divide a width, most of all
        return False
    return True


def small_phase(phase: Phase) -> Phase:
    """The phase in a few steps of a few short rows, as many for each stage, with two checkpoints on the way."""
    count = len(phase.stages)
    steps = max(STEPS, 2 * count)
    stages = tuple(replace(stage, share=1 / count) for stage in in_rows_of(LENGTH, phase))
    return replace(
        phase,
        stages=stages,
        tokens=Tokens(ceil(steps * ROWS * LENGTH * tokens_per_position(stages, LENGTH))),
        length=LENGTH,
        batch_tokens=ROWS * LENGTH,
        schedule=in_proportion(phase.schedule, steps / StepPlan(phase).steps),
        save_every=Steps(2),
        measure_every=Share(1.0),
        keep=(),
        resumes=None,
    )
