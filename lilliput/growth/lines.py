"""Layer-increasing scaling (LiNeS, arXiv 2410.17146): fine-tuned weights moved back to those before, deep layers less.

    theta_l = pretrained_l + lambda_l (tuned_l - pretrained_l),   lambda_l = alpha + beta (l - 1) / (L - 1)

for layer l of L. The embedding moves as the first layer does, the final norm and an untied head as the last one. Rows
of tokens that were added since, such as those of chats, stay as they were tuned: nothing was there before.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal, get_args

import torch
from torch import Tensor

from lilliput.base.errors import RecipeError
from lilliput.growth.growth import EarlierPhase, Growth, Lineage
from lilliput.model import LanguageModel, copy_weights
from lilliput.tokenizer.specials import vocabulary_size

Weights = Literal["last", "average"]


@dataclass(frozen=True, kw_only=True)
class LiNeS(Growth):
    """Move the weights back to those of an earlier phase: alpha + beta = 1 leaves the last layer as it is."""

    phase: str
    """The phase whose weights are the pretrained ones."""
    alpha: float
    """Share of the change that the first layer keeps."""
    beta: float
    """Share that the last layer keeps in addition."""
    weights: Weights = "last"
    """`average` where the timeline went on from the averaged weights of the phase, by UseEma."""

    def __post_init__(self) -> None:
        check_weights("LiNeS", self.weights)
        for name, value in (("alpha", self.alpha), ("beta", self.beta)):
            if not isfinite(value):
                raise RecipeError(f"{name} is {value}", where="LiNeS", hint="give a number, such as 0.5")

    def needs(self) -> tuple[str, ...]:
        return (self.phase,)

    def grow(self, lineage: Lineage, seed: int) -> Lineage:
        pretrained = weights_of(lineage.earlier[self.phase], self.weights, f"LiNeS(phase={self.phase!r})")
        known = vocabulary_size(lineage.tokenizer)
        copy_weights(lineage.model, scaled(lineage.model, pretrained, alpha=self.alpha, beta=self.beta, known=known))
        return replace(lineage, average={})

    def describe(self) -> str:
        return f"LiNeS from {self.phase}, alpha {self.alpha:g}, beta {self.beta:g}"


def check_weights(name: str, weights: str) -> None:
    """Refuse a kind of weights that no phase has.

    Raises:
        RecipeError: it is none.
    """
    if weights not in get_args(Weights):
        raise RecipeError(f"weights cannot be {weights!r}", where=name, hint=f"one of: {', '.join(get_args(Weights))}")


def weights_of(phase: EarlierPhase, weights: Weights, where: str) -> Mapping[str, Tensor]:
    """Return the last or the averaged weights of a phase, on the CPU.

    Raises:
        RecipeError: the phase has no average.
    """
    found = phase.average() if weights == "average" else phase.weights()
    if not found:
        raise RecipeError(
            "the phase has no averaged weights", where=where, hint='give it ema=Ema(...), or take weights="last"'
        )
    return found


def scaled(
    model: LanguageModel, pretrained: Mapping[str, Tensor], *, alpha: float, beta: float, known: int
) -> dict[str, Tensor]:
    """Return the weights of a tuned model, moved back to pretrained ones.

    Args:
        model: the tuned one, which stays as it is.
        pretrained: by name; an embedding and a head may have fewer rows.
        alpha: share of the change that the first layer keeps.
        beta: share that the last layer keeps in addition.
        known: ids of the tokenizer; what the model has beyond them is padding, and lay behind fewer tokens before.

    Raises:
        RecipeError: the models have other layers or widths.
    """
    layers, found = model.spec.layers, {}
    for name, parameter in model.named_parameters():
        tuned, before = parameter.detach(), pretrained.get(name)
        if before is None:
            raise _unlike(name, tuned, before)
        before = before.to(tuned.device, tuned.dtype)
        if name in ("embedding.weight", "output.weight") and before.shape[1:] == tuned.shape[1:]:
            first = known - (len(tuned) - len(before))
            before = torch.cat([before[:first], tuned[first:known], before[first:]])
        if before.shape != tuned.shape:
            raise _unlike(name, tuned, before)
        found[name] = torch.lerp(before, tuned, _kept(name, tuned, layers, alpha, beta))  # exact at 0 and at 1
    return found


def kept_share(layer: int, layers: int, alpha: float, beta: float) -> float:
    """Return lambda, the share of its change that a layer (from 0) keeps; the only one of a model is its last.

    Args:
        layer: number of the layer.
        layers: of the model.
        alpha: see `LiNeS`.
        beta: see `LiNeS`.
    """
    return alpha + beta * (layer / (layers - 1) if layers > 1 else 1.0)


def _kept(name: str, tuned: Tensor, layers: int, alpha: float, beta: float) -> Tensor | float:
    stem, _, rest = name.partition(".")
    if stem == "layers":
        return kept_share(int(rest.partition(".")[0]), layers, alpha, beta)
    if stem == "embedding":
        return kept_share(0, max(2, layers), alpha, beta)
    if stem == "shared" and tuned.shape[:1] == (layers,):  # a row for each layer, as lower bounds of gates have
        shares = [kept_share(layer, layers, alpha, beta) for layer in range(layers)]
        return (
            torch.tensor(shares, device=tuned.device, dtype=tuned.dtype)
            .view(-1, *[1] * (tuned.dim() - 1))
            .expand_as(tuned)
        )
    return kept_share(layers - 1, layers, alpha, beta)


def _unlike(name: str, tuned: Tensor, before: Tensor | None) -> RecipeError:
    shape = "nothing" if before is None else tuple(before.shape)
    return RecipeError(
        f"{name} is {tuple(tuned.shape)} now and was {shape} in the earlier phase",
        where="weights that LiNeS moves back",
        hint="name a phase after the last growth in depth: only tokens may have been added since",
    )
