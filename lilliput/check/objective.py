"""Checks of an objective, and of the route in it: what it charges, draws and trains."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor

from lilliput.base.own_code import plain_name
from lilliput.base.spec import is_lilliputs
from lilliput.check.compare import TOLERANCE, check_equal
from lilliput.check.random_rows import NoExtras, batch_of, split
from lilliput.check.result import CheckFailed, CheckSkipped, Result, place_of, result_of
from lilliput.check.small import LENGTH
from lilliput.data.batch import Batch
from lilliput.model import ModelSpec
from lilliput.objectives.noise import Noise
from lilliput.objectives.objective import Losses, Objective
from lilliput.train.phase import Phase, Stage
from lilliput.train.trainable import Trainable

SIZES = ([1, 3, 2], [1] * 6)
"""Rows of micro-batches that a step of six is split into."""


class _Step(NamedTuple):
    """The losses and gradients of one step."""

    losses: dict[str, Tensor]
    gradients: dict[str, Tensor]


def check_objective(stage: Stage, phase: Phase, model: ModelSpec) -> Iterator[Result]:
    """Check the objective of a stage of a phase around a model, on random rows."""
    spec = stage.objective
    built: list[_Task] = []
    name = f"{_name(spec)} of {phase.name}"
    build = result_of("objective", name, "build", lambda: built.append(_Task(spec, model)) or "")
    if build.state != "ok":
        yield build
        return
    (task,) = built
    if why := unfit_for(phase, model):
        yield Result(kind="objective", part=name, check="losses", state="skipped", says=why)
        return
    checks: dict[str, Callable[[_Task], str]] = {
        "losses": _has_finite_losses,
        "micro-batches": _adds_up,
        "noise": _draws_by_row,
        "active": _trains_what_is_active,
        "evaluation": _is_evaluated,
    }
    for check, run in checks.items():
        yield result_of("objective", name, check, lambda run=run: run(task))


def unfit_for(phase: Phase, model: ModelSpec) -> str:
    """Return why random rows of text are none that a phase trains on: it reads others, of a kind of its own."""
    try:
        for stage in phase.stages:
            task = _Task(stage.objective, model)
            with torch.no_grad():
                task.losses(task.batch, stage.objective.denominator(task.batch), 0)
    except CheckSkipped as why:
        return str(why)
    except Exception as error:
        if is_lilliputs(plain_name(type(phase.data))):
            return ""  # a check will fail with it
        return f"it is trained on rows of {type(phase.data).__name__}, and random ones do not do ({error})"
    return ""


def _name(spec: Objective) -> str:
    """Return the type of an objective, and of a route in it."""
    route = getattr(spec, "route", None)
    return type(spec).__name__ + (f", {type(route).__name__}" if route is not None else "")


class _Task:
    """An objective on the rows of one step."""

    def __init__(self, spec: Objective, model: ModelSpec):
        self.spec, self.trainable = spec, Trainable.of_phase(model.build(seed=0), [spec], seed=0)
        self.module = self.trainable.objective(0)
        self.variants = range(self.module.variants)
        self.batch = batch_of(model.vocab, 6, spec.row_length(LENGTH), spec.tokens_per_position)
        self.where = place_of(getattr(self.module, "route", self.module), "forward")
        self.active = place_of(getattr(self.module, "route", self.module), "active")
        self.denominates = place_of(spec, "denominator")
        self._noise = Noise("cpu")

    def losses(self, batch: Batch, denominator: float, variant: int, progress: float = 0.5) -> Losses:
        """Run forward over a micro-batch of step 3."""
        noise = self._noise.begin_step(seed=1, step=3)
        return self.module(batch, denominator, variant, torch.tensor(progress), noise)

    def step(self, batches: list[Batch], denominator: float, variant: int) -> _Step:
        """Run forward and backward over micro-batches, and add up as training does."""
        self.trainable.zero_grad()
        found: dict[str, Tensor] = {}
        for batch in batches:
            losses = self.losses(batch, denominator, variant)
            losses.loss.backward()
            parts = {"the loss": losses.loss.detach()} | {f"the term {name}": one for name, one in losses.terms.items()}
            found = {name: value + found.get(name, 0.0) for name, value in parts.items()}
        gradients = {name: one.grad.clone() for name, one in self.trainable.named_parameters() if one.grad is not None}
        return _Step(found, gradients)


def _differ(one: float, other: float) -> bool:
    """Return whether two losses lie farther apart than rounding takes them."""
    return abs(one - other) > TOLERANCE * max(1.0, abs(other))


def _has_finite_losses(task: _Task) -> str:
    """The loss is a finite number from the first step to the last, and the headline is one of its terms."""
    denominator = task.spec.denominator(task.batch)
    if not isfinite(denominator) or denominator <= 0:
        raise CheckFailed(
            f"the denominator of six rows with targets is {denominator}",
            where=task.denominates,
            hint="return the summed weight of the targets of a batch",
        )
    for variant in task.variants:
        for progress in (0.0, 0.5, 1.0):
            losses = task.losses(task.batch, denominator, variant, progress)
            if losses.loss.ndim or not losses.loss.isfinite():
                raise CheckFailed(
                    f"the loss of variant {variant} is {losses.loss.tolist()} at progress {progress}",
                    where=task.where,
                    hint="return one finite number to differentiate",
                )
            if task.spec.headline not in losses.terms:
                raise CheckFailed(
                    f"the headline {task.spec.headline!r} is none of the terms {', '.join(losses.terms) or '(none)'}",
                    where=task.where,
                    hint="name a term of every variant in `headline`",
                )
            for name, term in losses.terms.items():
                if term.requires_grad or term.ndim or not term.isfinite():
                    how = "not detached" if term.requires_grad else f"{term.tolist()}"
                    raise CheckFailed(
                        f"the term {name} of variant {variant} is {how}",
                        where=task.where,
                        hint="return detached, finite scalars as terms",
                    )
    return ""


def _adds_up(task: _Task) -> str:
    """Denominators, losses and gradients of micro-batches add up to those of the step."""
    denominator = task.spec.denominator(task.batch)
    for sizes in SIZES:
        batches = split(task.batch, sizes)
        parts = [task.spec.denominator(one) for one in batches]
        if abs(sum(parts) - denominator) > TOLERANCE * abs(denominator):
            raise CheckFailed(
                f"the denominators of {len(sizes)} micro-batches add up to {sum(parts):.6g}, that of all their rows is "
                f"{denominator:.6g}",
                where=task.denominates,
                hint="return a sum over the rows of the batch, no mean",
            )
        for variant in task.variants:
            whole = task.step([task.batch], denominator, variant)
            split_step = task.step(batches, denominator, variant)
            for name, value in whole.losses.items():
                added = float(split_step.losses[name])
                if _differ(added, float(value)):
                    raise CheckFailed(
                        f"{name} of variant {variant} is {float(value):.6g} of a step, and {added:.6g} summed over its "
                        f"{len(sizes)} micro-batches",
                        where=task.where,
                        hint="divide sums by the `denominator` that is given, never by what the batch holds",
                    )
            for name, gradient in whole.gradients.items():
                check_equal(
                    split_step.gradients.get(name, torch.zeros_like(gradient)),
                    gradient,
                    f"the gradient of {name} in variant {variant} over {len(sizes)} micro-batches, and of a whole step",
                    where=task.where,
                    hint="charge every target by itself, whatever the batch holds beside it",
                )
    return ""


def _draws_by_row(task: _Task) -> str:
    """A step is the same again, and in another order of its rows, whatever PyTorch's generator gives."""
    denominator = task.spec.denominator(task.batch)
    backwards = replace(task.batch.map(lambda one: one.flip(0)), extras=NoExtras())
    for variant in task.variants:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            first, again = (float(task.losses(task.batch, denominator, variant).loss) for _ in range(2))
        if first != again:
            raise CheckFailed(
                f"the same step of variant {variant} has a loss of {first:.6g}, and made again of {again:.6g}",
                where=task.where,
                hint="draw from `noise` alone: noise.normal(batch.row, ...), a function of seed, step and row",
            )
        with torch.no_grad():
            turned = float(task.losses(backwards, denominator, variant).loss)
        if _differ(turned, first):
            raise CheckFailed(
                f"the loss of variant {variant} is {first:.6g}, and {turned:.6g} of the same rows in another order",
                where=task.where,
                hint="draw by the number of a row in its step, `row`, not by its place in the micro-batch",
            )
    return ""


def _trains_what_is_active(task: _Task) -> str:
    """Every parameter that a variant says it trains gets a finite gradient."""
    denominator = task.spec.denominator(task.batch)
    reached, active = set(), set()
    for variant in task.variants:
        gradients = task.step([task.batch], denominator, variant).gradients
        names = task.trainable.active(0, variant)
        if not names:
            raise CheckFailed(f"variant {variant} trains nothing", where=task.active, hint="return parameters there")
        idle = [name for name in names if name not in gradients]
        if idle:
            more = f" and {len(idle) - 1:,} more" if len(idle) > 1 else ""
            raise CheckFailed(
                f"active({variant}) has {idle[0]}{more} of {len(names):,} parameters, and no gradient reaches it",
                where=task.active,
                hint="return what the variant trains alone: the rest would decay, move by momentum and be averaged",
            )
        bad = [name for name in names if not gradients[name].isfinite().all()]
        if bad:
            raise CheckFailed(
                f"the gradient of {bad[0]} in variant {variant} is not finite",
                where=task.where,
                hint="look for a logarithm, a root or a quotient of 0",
            )
        reached |= gradients.keys()
        active |= names.keys()
    left_out = sorted(reached - active)
    return f"no variant trains {', '.join(left_out)}, whose gradients are dropped" if left_out else ""


@torch.no_grad()
def _is_evaluated(task: _Task) -> str:
    """Held-out numbers are a finite sum and a positive weight, or none."""
    where = place_of(task.module, "evaluate")
    # Held-out rows are of single tokens, whatever the bag in training.
    batch = batch_of(int(task.batch.tokens.max()) + 1, 6, LENGTH + 1, 1)
    found = task.module.evaluate(batch)
    if found is None:
        raise CheckSkipped("evaluate returns None: held-out numbers are shown as not defined")
    if not isinstance(found, tuple) or len(found) != 2:
        hint = "return (the headline summed over the held-out targets, their weight), or None"
        raise CheckFailed(f"evaluate returns {type(found).__name__}", where=where, hint=hint)
    total, weight = (float(one) for one in found)
    if not isfinite(total) or not isfinite(weight) or weight <= 0:
        raise CheckFailed(
            f"evaluate returns a sum of {total:.6g} over a weight of {weight:.6g}",
            where=where,
            hint="return a finite sum, and the summed weight of the held-out targets",
        )
    return f"{task.spec.headline} {total / weight:.4f} before training"
