"""All checks of a recipe's parts: of its mixers, and of the optimizer and objectives of each phase that differs."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from lilliput.base.implemented import is_implemented, unimplemented_parts
from lilliput.check.mixer import check_mixers
from lilliput.check.objective import check_objective
from lilliput.check.optimizer import check_optimizer
from lilliput.check.result import Result
from lilliput.check.resume import check_resuming
from lilliput.check.small import small_model
from lilliput.recipe import Recipe
from lilliput.train.phase import Phase


def check(recipe: Recipe) -> Iterator[Result]:
    """Yield the result of each check of a recipe's parts as it is there; nothing is read and nothing stays.

    Equal parts are checked once, on the shape that the timeline begins with. One thread is enough for tensors so small,
    and two that wait for each other on a busy machine took three times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from _checks(recipe)
    finally:
        torch.set_num_threads(threads)


def _checks(recipe: Recipe) -> Iterator[Result]:
    model = small_model(recipe.model.shape)
    yield from check_mixers(model)
    for phase in recipe.phases.values():
        if parts := unimplemented_parts(phase):
            yield Result(kind="phase", part=phase.name, check="build", state="skipped", says=f"not built: {parts[0]}")
    phases = _unlike([phase for phase in recipe.phases.values() if is_implemented(phase)])
    checked: list[object] = []
    for phase in phases:
        if phase.optimizer not in checked:
            checked.append(phase.optimizer)
            yield from check_optimizer(phase, model)
        for stage in phase.stages:
            if stage.objective not in checked:
                checked.append(stage.objective)
                yield from check_objective(stage, phase, model)
    for phase in phases:
        yield from check_resuming(phase, model)


def _unlike(phases: list[Phase]) -> list[Phase]:
    """Return the phases that train in different ways, whatever they are named and read, and however long."""
    found: list[tuple[object, ...]] = []
    kept: list[Phase] = []
    for phase in phases:
        stages = tuple(replace(stage, share=1.0) for stage in phase.stages)
        way = (stages, phase.optimizer, phase.ema, phase.guard, phase.clip, phase.schedule)
        if way not in found:
            found.append(way)
            kept.append(phase)
    return kept
