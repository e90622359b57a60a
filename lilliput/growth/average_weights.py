"""Means of weights: of phases of a timeline, or of the checkpoints that one of them kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite

import torch
from torch import Tensor

from lilliput.base.errors import RecipeError
from lilliput.growth.growth import Growth, Lineage
from lilliput.growth.lines import Weights, check_weights, weights_of
from lilliput.model import copy_weights


@dataclass(frozen=True, kw_only=True)
class AverageWeights(Growth):
    """Continue with the mean of the weights that phases ended with.

    They lie in one valley where each began with weights of the one before; the mean of runs from different beginnings
    is no model.
    """

    phases: tuple[str, ...]
    shares: tuple[float, ...] = ()
    """Share of each phase; they add up to 1. Equal ones if empty."""
    weights: Weights = "last"
    """The last weights of each phase, or their average."""

    def __post_init__(self) -> None:
        check_weights("AverageWeights", self.weights)
        if len(self.phases) < 2:
            raise RecipeError(
                f"a mean of {len(self.phases)} phases is none", where="AverageWeights", hint="name at least two phases"
            )
        _check_shares(self.shares, len(self.phases), "AverageWeights")

    def needs(self) -> tuple[str, ...]:
        return self.phases

    def grow(self, lineage: Lineage, seed: int) -> Lineage:
        where = "AverageWeights(phases=...)"
        found = [weights_of(lineage.earlier[name], self.weights, where) for name in self.phases]
        return _averaged(lineage, found, self.shares, where)

    def describe(self) -> str:
        return f"mean of {', '.join(self.phases)}"


@dataclass(frozen=True, kw_only=True)
class AverageKept(Growth):
    """Continue with the mean of the checkpoints that a phase kept, `Phase(keep=...)`."""

    phase: str
    shares: tuple[float, ...] = ()
    """Share of each checkpoint, the earliest first; they add up to 1. Equal ones if empty."""

    def needs(self) -> tuple[str, ...]:
        return (self.phase,)

    def grow(self, lineage: Lineage, seed: int) -> Lineage:
        phase, where = lineage.earlier[self.phase], f"AverageKept(phase={self.phase!r})"
        if not phase.kept_steps:
            raise RecipeError(
                f"{self.phase!r} kept no checkpoint",
                where=where,
                hint="give it keep=(Share(0.8), Share(0.9), Share(1.0))",
            )
        _check_shares(self.shares, len(phase.kept_steps), where)
        return _averaged(lineage, [phase.kept(step)["weights"] for step in phase.kept_steps], self.shares, where)

    def describe(self) -> str:
        return f"mean of checkpoints of {self.phase}"


def mean_of(found: Sequence[Mapping[str, Tensor]], shares: Sequence[float], where: str) -> dict[str, Tensor]:
    """Return the weighted mean of weights by name, summed in fp64.

    Raises:
        RecipeError: they are of models of different shapes.
    """
    shapes = [{name: tuple(one.shape) for name, one in weights.items()} for weights in found]
    first = shapes[0]
    unlike = sorted(name for one in shapes[1:] for name in first.keys() | one if first.get(name) != one.get(name))
    if unlike:
        raise RecipeError(
            f"the weights have other shapes: {unlike[0]} is {', '.join(str(one.get(unlike[0])) for one in shapes)}",
            where=where,
            hint="average phases with no growth in layers or tokens between them",
        )
    shares = shares or [1 / len(found)] * len(found)
    return {
        name: torch.stack([share * one[name].double() for share, one in zip(shares, found, strict=True)]).sum(dim=0)
        for name in found[0]
    }


def _averaged(lineage: Lineage, found: Sequence[Mapping[str, Tensor]], shares: Sequence[float], where: str) -> Lineage:
    mean = mean_of(found, shares, where)
    own = {name: tuple(parameter.shape) for name, parameter in lineage.model.named_parameters()}
    if unlike := [name for name, shape in own.items() if name not in mean or tuple(mean[name].shape) != shape]:
        raise RecipeError(
            f"the model has another shape by now: {unlike[0]} is {own[unlike[0]]}",
            where=where,
            hint="put the mean before growths in layers or tokens",
        )
    copy_weights(lineage.model, mean)
    return replace(lineage, average={})


def _check_shares(shares: Sequence[float], count: int, where: str) -> None:
    if shares and (len(shares) != count or not all(map(isfinite, shares)) or abs(sum(shares) - 1) > 1e-9):
        raise RecipeError(
            f"the shares {', '.join(map(str, shares))} are not {count} that add up to 1",
            where=where,
            hint="give one for each, or leave them out for equal ones",
        )
