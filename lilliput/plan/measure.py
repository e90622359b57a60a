"""Measures the cost of phases on this machine: real models, objectives and optimizers, run a little on random tokens.

Nothing is left behind, and threads are set back.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from lilliput.base.errors import RecipeError
from lilliput.data.formats import format_of
from lilliput.plan.cost import Cost
from lilliput.plan.profile_compiled import CompiledProfile
from lilliput.plan.profile_eager import EagerProfile
from lilliput.plan.timeline_shapes import timeline_shapes
from lilliput.recipe import Recipe
from lilliput.train.machine import Machine
from lilliput.train.memory import enough_memory
from lilliput.train.phase import Phase


def probe(recipe: Recipe, machine: Machine, report: Callable[[str], None]) -> dict[int, Cost]:
    """Measure the phases of a recipe here.

    Args:
        recipe: whose phases.
        machine: this one.
        report: told what is being measured, and which phases cannot be.

    Returns:
        the cost of each phase by its index in the timeline; phases with parts that are not built are left out.

    Raises:
        MachineError: a phase needs more memory than there is.
    """
    machine = machine.resolved()
    costs = {}
    with _prepared(machine):
        is_compiled = machine.device.startswith("cuda") or machine.compile != "off"
        bench = CompiledProfile(machine, report) if is_compiled else EagerProfile(machine)
        for stop in timeline_shapes(recipe):
            phase = recipe.phases.get(stop.index)
            if phase is None:
                continue
            report(f"measuring a step of {phase.name}")
            try:
                with enough_memory(machine.device, f"a step of {phase.name}"):
                    costs[stop.index] = bench.cost(phase, stop.before, _targets(recipe, phase))
            except RecipeError as error:
                report(f"{phase.name} cannot be measured: {error.what}")
    return costs


def _targets(recipe: Recipe, phase: Phase) -> float:
    """The share of a phase's positions that are targets, about."""
    shares = [format_of(recipe.corpora[name]).target_share for name in phase.data.corpora]
    return sum(shares) / len(shares)


@contextmanager
def _prepared(machine: Machine) -> Iterator[None]:
    threads = torch.get_num_threads()
    machine.apply()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if torch.device(machine.device).type == "cuda":
            torch.cuda.empty_cache()
