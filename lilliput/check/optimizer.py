"""Checks of an optimizer: what it moves, what it leaves alone, and that its state can be saved."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lilliput.check.compare import check_equal, largest_of
from lilliput.check.result import CheckFailed, CheckSkipped, Result, place_of, result_of
from lilliput.model import ModelSpec
from lilliput.objectives.objective import Objective
from lilliput.optim.optimizer import OptimizerSpec, load_state_tensors, set_multiplier, state_tensors
from lilliput.train.phase import Phase
from lilliput.train.trainable import Trainable

BEFORE = 3
"""Steps that make momentum before something is looked at."""


def check_optimizer(phase: Phase, model: ModelSpec) -> Iterator[Result]:
    """Check the optimizer of a phase over a model and what the objectives own."""
    spec, objectives = phase.optimizer, tuple(stage.objective for stage in phase.stages)
    checks = {
        "groups": _has_groups,
        "moves what has a gradient": _moves,
        "leaves what has none": _leaves_what_has_no_gradient,
        "a rate of 0": _stays_at_a_rate_of_zero,
        "state": _is_saved,
    }
    for name, check in checks.items():

        def run(check: Any = check) -> str:
            return check(lambda: _Training(spec, model, objectives))

        yield result_of("optimizer", f"{type(spec).__name__} of {phase.name}", name, run)


class _Training:
    """An optimizer at work on random gradients; two of them are equal to the bit."""

    def __init__(self, spec: OptimizerSpec, model: ModelSpec, objectives: tuple[Objective, ...]):
        self.trainable = Trainable.of_phase(model.build(seed=0), objectives, seed=0)
        self.parameters = dict(self.trainable.named_parameters())
        self.optimizer = spec.build(self.trainable)
        self.where = place_of(self.optimizer, "step")
        self.built = place_of(spec, "build")
        self._steps = 0

    def step(self, without: frozenset[str] = frozenset(), multiplier: float = 1.0) -> None:
        """Take a step in which some parameters have no gradient."""
        set_multiplier(self.optimizer, multiplier)
        draw = torch.Generator().manual_seed(self._steps)
        for name, parameter in self.parameters.items():
            gradient = torch.randn(parameter.shape, generator=draw)
            parameter.grad = None if name in without else gradient
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._steps += 1

    def go_on_from(self, other: "_Training") -> None:
        """Take over weights and state of another one, as a resumed run does."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(other.parameters[name])
        load_state_tensors(self.optimizer, self.trainable, copied(state_tensors(other.optimizer, other.trainable)))
        self._steps = other._steps

    def weights(self) -> dict[str, Tensor]:
        """Return copies of all parameters."""
        return copied(self.parameters)

    def peaks(self) -> dict[str, float]:
        """Return the peak rate of each parameter that it has in a group."""
        names = {id(one): name for name, one in self.parameters.items()}
        groups = self.optimizer.param_groups
        return {names[id(one)]: float(group["peak"]) for group in groups for one in group["params"]}


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with memory of their own."""
    return {name: one.detach().clone() for name, one in tensors.items()}


def _has_groups(build: Any) -> str:
    training = build()
    for number, group in enumerate(training.optimizer.param_groups):
        if "peak" not in group:
            raise CheckFailed(
                f"group {number} of {len(training.optimizer.param_groups)}, of {len(group['params'])} parameters, has "
                "no `peak`",
                where=training.built,
                hint='give every group its learning rate as "peak" too: schedules multiply it',
            )
    listed = [id(one) for group in training.optimizer.param_groups for one in group["params"]]
    for name, parameter in training.parameters.items():
        if (times := listed.count(id(parameter))) != 1:
            raise CheckFailed(
                f"{name} is in {times} groups",
                where=training.built,
                hint="put everything that named_parameters() of what `build` gets yields into one group",
            )
    return ""


def _moves(build: Any) -> str:
    training = build()
    before, peaks = training.weights(), training.peaks()
    for _ in range(BEFORE):
        training.step()
    for name, one in training.parameters.items():
        if peaks.get(name, 1) and torch.equal(one, before[name]):
            raise CheckFailed(
                f"{name} has a gradient, and stays as it is for {BEFORE} steps",
                where=training.where,
                hint="move every parameter that has a gradient",
            )
        if not one.isfinite().all():
            raise CheckFailed(
                f"{name} is not finite after {BEFORE} steps on normal gradients",
                where=training.where,
                hint="look for a division by what may be 0",
            )
    return ""


def _leaves_what_has_no_gradient(build: Any) -> str:
    """A parameter without a gradient is moved by neither momentum nor decay, and its state stays, too."""
    training = build()
    for _ in range(BEFORE):
        training.step()
    names = list(training.parameters)
    for without in (frozenset(names[::2]), frozenset(names[1::2])):
        before = training.weights()
        state = copied(state_tensors(training.optimizer, training.trainable))
        training.step(without=without)
        after = state_tensors(training.optimizer, training.trainable)
        for name in sorted(without):
            moved = training.parameters[name].detach() - before[name]
            if moved.any():
                by = f"{largest_of(moved):.3g}{_why(moved, before[name])}"
                raise CheckFailed(
                    f"{name} has no gradient in a step, and moved by {by}",
                    where=training.where,
                    hint="leave out parameters whose grad is None: another variant of the objective trains them",
                )
            for key, value in state.items():
                if key.startswith(f"{name}/"):
                    check_equal(
                        after[key],
                        value,
                        f"the state {key} after a step without a gradient, and before",
                        where=training.where,
                        hint="leave the state of parameters alone whose grad is None",
                        exact=True,
                    )
    return ""


def _why(moved: Tensor, before: Tensor) -> str:
    """Say that a step is decay where it is one number times the weights."""
    share = float((moved * before).sum() / before.square().sum().clamp_min(1e-30))
    is_decay = share < 0 and largest_of(moved - share * before) <= 0.01 * largest_of(moved)
    return f", its weights times {share:.3g}: by decay" if is_decay else ": by momentum"


def _stays_at_a_rate_of_zero(build: Any) -> str:
    training = build()
    for _ in range(BEFORE):
        training.step()
    before = training.weights()
    training.step(multiplier=0.0)
    for name, one in training.parameters.items():
        check_equal(
            one,
            before[name],
            f"{name} after a step at a learning rate of 0, and before",
            where=training.where,
            hint="multiply every change, decay too, by the group's `lr`, which schedules set",
            exact=True,
        )
    return ""


def _is_saved(build: Any) -> str:
    training = build()
    for _ in range(BEFORE):
        training.step()
    state = state_tensors(training.optimizer, training.trainable)
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckFailed(
                f"the state {key} is a {type(value).__name__}",
                where=training.where,
                hint="keep tensors in optimizer.state[parameter]: checkpoints hold tensors",
            )
    resumed = build()
    resumed.go_on_from(training)
    for _ in range(2):
        training.step()
        resumed.step()
    for name, one in training.parameters.items():
        check_equal(
            resumed.parameters[name],
            one,
            f"{name} two steps after its state was loaded, and without that",
            where=training.where,
            hint="keep all that a step reads in optimizer.state[parameter], as tensors",
            exact=True,
        )
    if not state:
        raise CheckSkipped("it has no state")
    return ""
