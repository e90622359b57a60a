"""Counts a timeline's parameters, steps and memory from the recipe alone; adds time and activations if probed."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lilliput.base.errors import MachineError
from lilliput.base.implemented import unimplemented_parts
from lilliput.base.protocols import provides
from lilliput.base.spec import to_plain
from lilliput.data.license_terms import disagreements
from lilliput.growth.growth import GROWTH
from lilliput.model import ModelSpec
from lilliput.objectives.objective import Objective
from lilliput.objectives.routes.route import CountedRoute
from lilliput.plan.corpora import corpora
from lilliput.plan.cost import Cost
from lilliput.plan.growth_timing import tokens_before_growth
from lilliput.plan.memory import held_bytes
from lilliput.plan.pricing import Tariff
from lilliput.plan.rating import Rating
from lilliput.plan.timeline_shapes import at_first, timeline_shapes
from lilliput.publish.export import DTYPES
from lilliput.recipe import Recipe, Release
from lilliput.train.checkpoint import KEPT
from lilliput.train.machine import Machine
from lilliput.train.passes import shares
from lilliput.train.phase import Phase, StepPlan

HALF, SINGLE = 2, 4
"""Bytes of a number in fp16 or bf16, and in fp32."""
COUNTED = ("steps", "tokens", "positions", "operations")
"""Counts of a phase, and their totals."""


def plan(
    recipe: Recipe,
    machine: Machine = Machine(),
    *,
    costs: Mapping[int, Cost] | None = None,
    tariff: Tariff = Tariff(),
    rating: Rating | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Everything that can be said of a run before it, without asking anybody over a network.

    Args:
        recipe: what would be done.
        machine: where; it decides how a step is split into micro-batches.
        costs: what `probe` measured there, by index in the timeline; None where it was not measured.
        tariff: what an hour there costs.
        rating: how fast the machine is said to be; without costs time is estimated from it.
        folder: the run folder, whose token files are known; None if none.

    Returns:
        JSON values: `model`, its parameters and ids at first; `corpora` (see `lilliput.plan.corpora`); `phases`,
        `growths` (with `timing`, tokens before a growth in depth and those that a published rule advises), `releases`
        and `others`, one a timeline entry with its `index` and `name`; `totals` over the timeline;
        `not_implemented`, the parts that are not. Bytes of models, tokens, positions and operations (floating point,
        forward and backward through every layer that runs, 3 times the forward pass) are exact. What a later phase
        replaces, because it resumes a phase before its decay, is in that one's `replaced` and in no total, nor in a
        corpus's `tokens_read`: totals are those of the last model, but for the cost. What was probed is None
        elsewhere: `activations` and `peak` of a phase's `memory`, its `micro_batches` where they are found from memory,
        and its `cost`, extrapolated from the `passes` and `updates` that were run; no updates mean whole steps as
        passes. The totals' `estimate` is of all operations at the speed of a rating; None without one, or with costs.

    Raises:
        MachineError: there is a tariff for hours that are neither measured nor estimated.
    """
    if costs is None and rating is None and tariff != Tariff():
        raise MachineError(
            "a price needs measured time",
            where="the tariff of a plan",
            hint="add --probe, which measures the recipe on this machine",
        )
    rating, costs = rating if costs is None else None, costs or {}
    phases, growths, releases, others = [], [], [], []
    read: Counter[str] = Counter()
    for index, entry, before, after in timeline_shapes(recipe):
        named = {"index": index, "name": getattr(entry, "name", type(entry).__name__)}
        if (phase := recipe.phases.get(index)) is not None:
            counted = _phase(phase, before, machine, costs.get(index), tariff)
            counted["replaced"] = _replaced(recipe, index, phase, counted)
            phases.append(named | counted)
            for name, share in shares(phase).items():
                read[name] += share * (counted["tokens"] - counted["replaced"]["tokens"])
        elif (release := recipe.releases.get(index)) is not None:
            releases.append(named | _release(release, before))
        elif entry.kind == GROWTH:
            growths.append(named | {"before": _parameters(before), "after": _parameters(after), "phases": len(phases)})
        else:
            others.append(named | {"kind": entry.kind, "what": entry.describe(), "reads": list(entry.reads())})
    for growth in growths:
        growth["timing"] = _timing(growth, phases[: growth.pop("phases")], phases)
    texts = corpora(recipe, read, folder)
    operations = sum(phase["operations"] for phase in phases)
    estimate = {"estimate": rating and rating.estimate(operations, tariff)}
    return {
        "recipe": recipe.name,
        "about": recipe.about,
        "machine": machine.device,
        "model": {"parameters": _parameters(at_first(recipe)), "vocabulary": at_first(recipe).vocab},
        "corpora": texts,
        "license_notes": _license_notes(recipe),
        "phases": phases,
        "growths": growths,
        "releases": releases,
        "others": others,
        "totals": _totals(phases, releases, texts, tariff) | estimate,
        "not_implemented": unimplemented_parts(recipe),
    }


def _license_notes(recipe: Recipe) -> list[str]:
    """Terms of the texts' licenses that the recipe's has not."""
    read = dict.fromkeys(name for phase in recipe.phases.values() for name in phase.reads())
    return list(map(str, disagreements(recipe.license, {name: to_plain(recipe.corpora[name]) for name in read})))


def _parameters(spec: ModelSpec) -> dict[str, int]:
    return spec.skeleton().parameter_counts()


def _timing(
    growth: dict[str, Any], before: list[dict[str, Any]], phases: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """Return tokens before a growth in depth, those that the rule advises, and all; None for other growths.

    Args:
        growth: with parameters before and after.
        before: the phases before it.
        phases: all of the timeline.
    """
    parameters, operations = growth["after"]["non_embedding"], sum(phase["operations"] for phase in phases)
    if parameters <= growth["before"]["non_embedding"] or not operations:
        return None
    return {
        "tokens": sum(phase["tokens"] for phase in before),
        "advised": round(tokens_before_growth(parameters, operations)),
        "total": sum(phase["tokens"] for phase in phases),
    }


def _release(release: Release, spec: ModelSpec) -> dict[str, Any]:
    release.layout.check_supported(spec)
    parameters = _parameters(spec)
    return {
        "parameters": parameters,
        "state_bytes": _state(spec, release.layout.context),
        "dtype": release.dtype,
        "download_bytes": parameters["total"] * DTYPES[release.dtype].itemsize,
    }


def _state(spec: ModelSpec, context: int) -> dict[str, int]:
    """Bytes that one row of text needs while the model writes it."""
    first, second, last = (spec.state_entries(length) for length in (1, 2, context))
    if first == second == last:
        return {"fp16": HALF * last, "fp32": SINGLE * last}
    return {"bf16_per_token": HALF * (second - first), "context": context, "bf16_at_context": HALF * last}


def phase_operations(phase: Phase, spec: ModelSpec) -> int:
    """Return the floating-point operations of a phase of a model of this shape, forward and backward."""
    return sum(stage["operations"] for stage in _stages(phase, spec))


def _stages(phase: Phase, spec: ModelSpec) -> list[dict[str, Any]]:
    steps = StepPlan(phase)
    counts = Counter(steps.stage(step) for step in range(steps.steps))
    stages = []
    for index, stage in enumerate(phase.stages):
        length = stage.positions(phase.length)
        positions = counts[index] * steps.positions(index)
        stages.append(
            {
                "steps": counts[index],
                "tokens_per_position": stage.objective.tokens_per_position,
                "tokens": counts[index] * steps.tokens(index),
                "positions": positions,
                "length": length,
                "operations": 3 * _flops(stage.objective, spec, length) * positions,
            }
        )
    return stages


def _phase(phase: Phase, spec: ModelSpec, machine: Machine, cost: Cost | None, tariff: Tariff) -> dict[str, Any]:
    steps, stages = StepPlan(phase), _stages(phase, spec)
    tokens, positions, operations = (sum(stage[key] for stage in stages) for key in COUNTED[1:])
    parameters = _parameters(spec)
    micro = machine.micro_batch_sizes(steps.rows, phase.length, cost and cost.rows)
    known = cost is not None or not machine.rows_from_memory
    held = held_bytes(phase, spec, captures=machine.captures)
    state = held["weights"] + held["optimizer"] + held["average"]
    before_decay = steps.stable_until is not None
    saves = 1 + sum(steps.is_due(phase.save_every, step) for step in range(1, steps.steps + 1))  # one before any step
    return {
        "parameters": parameters,
        "steps": steps.steps,
        "tokens": tokens,
        "positions": positions,
        "rows": steps.rows,
        "length": phase.length,
        "stages": stages,
        "operations": operations,
        "tokens_per_parameter": tokens / parameters["total"],
        "micro_batches": {"count": len(micro) if known else None, "rows": max(micro) if known else None},
        "checkpoints": {
            "kept": min(KEPT, saves),
            "before_decay": before_decay,
            "for_good": len(steps.kept_steps),
            "bytes": (min(KEPT, saves) + before_decay + len(steps.kept_steps)) * state,
        },
        "memory": held | _measured_memory(held, max(micro), cost),
        "cost": None if cost is None else _cost(cost, stages, steps.rows, tariff),
    }


def _flops(objective: Objective, spec: ModelSpec, length: int) -> int:
    """Return a third of the operations of a step, a position: those of every layer, unless a route says otherwise."""
    route: Any = getattr(objective, "route", None)
    return route.flops(spec, length) if provides(route, CountedRoute) else spec.flops(length)


def _measured_memory(held: dict[str, int], rows: int, cost: Cost | None) -> dict[str, Any]:
    """Return the bytes that micro-batches of `rows` rows add: for whole steps all, for pieces what passes keep."""
    together = sum(held.values())
    if cost is not None and cost.peak is not None:
        return {"activations": cost.peak - together, "peak": cost.peak}
    kept = [one.activations * rows // one.rows for one in cost.passes if one.activations] if cost else []
    return {"activations": max(kept), "peak": together + max(kept)} if kept else {"activations": None, "peak": None}


def _cost(cost: Cost, stages: list[dict[str, int]], rows: int, tariff: Tariff) -> dict[str, Any]:
    """Seconds of the whole phase, from those of a few passes and updates, or of a few steps."""
    update = 0.0 if cost.update is None else cost.update.seconds
    by_stage = [rows / one.rows * one.seconds + update for one in cost.passes]
    seconds = sum(stage["steps"] * each for stage, each in zip(stages, by_stage, strict=True))
    steps = sum(stage["steps"] for stage in stages)
    return {
        "passes": [
            {"count": one.repeats, "rows": one.rows, "of_rows": rows, "seconds": one.seconds} for one in cost.passes
        ],
        "updates": cost.update and {"count": cost.update.repeats, "seconds": cost.update.seconds},
        "seconds_per_step": seconds / steps,
        "tokens_per_second": sum(stage["tokens"] for stage in stages) / seconds,
        "seconds": seconds,
        "hours": seconds / 3600,
    } | tariff.bill(seconds)


def _replaced(recipe: Recipe, index: int, phase: Phase, counted: dict[str, Any]) -> dict[str, Any]:
    """Return what of a phase is no part of the last model: its steps from where a later phase resumes it on, and by
    which.
    """
    after = recipe.resumed_by(index)
    if after is None:
        return dict.fromkeys(COUNTED, 0) | {"by": None}
    plan = StepPlan(phase)
    steps = range(plan.resumable, plan.steps)
    stages = [plan.stage(step) for step in steps]
    return {
        "by": getattr(recipe.timeline[after], "name", None),
        "steps": len(steps),
        "tokens": sum(map(plan.tokens, stages)),
        "positions": sum(map(plan.positions, stages)),
        "operations": sum(
            counted["stages"][stage]["operations"] // counted["stages"][stage]["steps"] for stage in stages
        ),
    }


def _totals(
    phases: list[dict[str, Any]], releases: list[dict[str, Any]], texts: list[dict[str, Any]], tariff: Tariff
) -> dict[str, Any]:
    totals: dict[str, Any] = {key: sum(phase[key] - phase["replaced"][key] for phase in phases) for key in COUNTED}
    totals["checkpoint_bytes"] = sum(phase["checkpoints"]["bytes"] for phase in phases)
    totals["download_bytes"] = sum(release["download_bytes"] for release in releases)
    sizes = [text["token_file_bytes"] for text in texts]
    totals["token_file_bytes"] = None if None in sizes else sum(sizes)
    costs = [phase["cost"] for phase in phases if phase["cost"] is not None]
    if not costs:
        return totals | {"cost": None}
    seconds = sum(cost["seconds"] for cost in costs)
    cost = {"phases": len(costs), "of_phases": len(phases), "seconds": seconds, "hours": seconds / 3600}
    return totals | {"cost": cost | tariff.bill(seconds)}
