"""More layers from trained ones: a model of n layers becomes one of n times k (G_stack, arXiv 2405.15319).

    stack             0 1 2  0 1 2      whole copies one after another
    stack, drop=1     0 1  1 2          the same without the layers at each seam (SOLAR, arXiv 2312.15166)
    interleaved       0 0 1 1 2 2       each layer followed by its copy
    zero              0 1 2  . . .      whole copies that add nothing to the stream yet

Only `zero` computes at first what the model computed before; the paper's largest speed-up is that of `stack`. Shared
parameters, such as lower bounds of gates that rise with the depth, are spread over the new depth.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from lilliput.base.errors import RecipeError
from lilliput.base.spec import LATER
from lilliput.growth.growth import EarlierPhase, Growth, Lineage
from lilliput.model import LanguageModel, ModelSpec
from lilliput.nn.init import RESIDUAL_OUTPUTS
from lilliput.nn.per_layer import mixer_at

Order = Literal["stack", "interleaved", "zero"]
Moments = Literal["fresh", "copied"]


@dataclass(frozen=True, kw_only=True)
class Stack(Growth):
    """Repeat the layers; embedding, head and final norm stay as they are, and averages of weights start again."""

    times: int = 2
    """Copies of the layers; 1 changes nothing."""
    order: Order = "stack"
    """The order of the copies, as drawn above."""
    drop: int = field(default=0, metadata=LATER)
    """Layers left out on either side of each seam between two copies, with order="stack"."""
    optimizer: Moments = field(default="fresh", metadata=LATER)
    """`copied`: the next phase, which has the same optimizer, begins with the state at the end of the phase before,
    repeated with the layers. `fresh`: it begins without any, as every other phase does."""

    def __post_init__(self) -> None:
        if self.times < 1:
            raise RecipeError(
                f"times is {self.times}", where="Stack", hint="times must be at least 1; 2 doubles the layers"
            )
        if self.order not in get_args(Order):
            raise RecipeError(
                f"there is no order {self.order!r}", where="Stack.order", hint=f"one of {', '.join(get_args(Order))}"
            )
        if self.optimizer not in get_args(Moments):
            raise RecipeError(
                f"optimizer cannot be {self.optimizer!r}",
                where="Stack.optimizer",
                hint=f"one of {', '.join(get_args(Moments))}",
            )
        if self.drop < 0 or (self.drop and self.order != "stack"):
            raise RecipeError(
                f"drop={self.drop} and order={self.order!r} do not go together",
                where="Stack",
                hint='only whole copies have a seam to leave layers out at: order="stack", and a drop of 0 or more',
            )

    def shape(self, spec: ModelSpec) -> ModelSpec:
        """Return the shape with more layers.

        Raises:
            RecipeError: a copy would stand where the rotary rule treats it unlike its original, or no layer is left of
                a copy.
        """
        if self.drop >= spec.layers or (self.times > 2 and 2 * self.drop >= spec.layers):
            raise RecipeError(
                f"drop={self.drop} leaves nothing of a copy of {spec.layers} layers",
                where=f"Stack(times={self.times})",
                hint="drop fewer layers than half of the model has",
            )
        for layer, original in enumerate(self.originals(spec.layers)):
            mixer, its = mixer_at(spec.mixer, layer), mixer_at(spec.mixer, original)
            if mixer != its:
                raise RecipeError(
                    f"layer {layer} would be a copy of layer {original}, and mixes in another way",
                    where=f"Stack(times={self.times}, order={self.order!r}) of {spec.layers} layers of {spec.mixer}",
                    hint='stack whole patterns with order="stack" or "zero"',
                )
            rope = getattr(mixer, "rope", None)
            if rope is not None and rope.applies(layer) != rope.applies(original):
                raise RecipeError(
                    f"layer {layer} would be a copy of layer {original}, and {rope} turns only one of the two",
                    where=f"Stack(times={self.times}, order={self.order!r}) of {spec.layers} layers",
                    hint='stack an even number of layers with order="stack" or "zero" and an even drop, or rotate in '
                    "all layers alike",
                )
        return replace(spec, layers=len(self.originals(spec.layers)))

    def originals(self, layers: int) -> list[int]:
        """Return the layer, of `layers`, that each layer of the result is a copy of."""
        if self.order == "interleaved":
            return [layer // self.times for layer in range(layers * self.times)]
        copies = range(self.times)
        begin = [self.drop if copy > 0 else 0 for copy in copies]
        end = [layers - self.drop if copy < self.times - 1 else layers for copy in copies]
        return [layer for copy in copies for layer in range(begin[copy], end[copy])]

    @property
    def keeps_optimizer(self) -> bool:
        return self.optimizer == "copied"

    def grow(self, lineage: Lineage, seed: int) -> Lineage:
        if self.times == 1 and not self.keeps_optimizer:
            return lineage
        model, optimizer = lineage.model, None
        if self.keeps_optimizer:
            once = {name for name, _ in model.named_parameters() if not name.startswith(("layers.", "shared."))}
            last = list(lineage.earlier.values())[-1]
            # Not of the lineage itself, whose model would stay in memory for as long as the next phase trains.
            optimizer = partial(_stacked_state, last, self.originals(model.spec.layers), once)
        return replace(lineage, model=self._stacked(model), average={}, optimizer=optimizer)

    def _stacked(self, model: LanguageModel) -> LanguageModel:
        """Return a model with storage of its own: copies are equal at first and then learn apart."""
        first = next(model.parameters())
        grown = self.shape(model.spec).skeleton().to_empty(device=first.device).to(first.dtype)
        old = dict(model.named_parameters())
        originals = self.originals(model.spec.layers)
        with torch.no_grad():
            for name, parameter in grown.named_parameters():
                stem, _, rest = name.partition(".")
                if stem == "shared":
                    continue
                if stem != "layers":
                    parameter.copy_(old[name])
                    continue
                layer, _, rest = rest.partition(".")
                parameter.copy_(old[f"layers.{originals[int(layer)]}.{rest}"])
                if self.order == "zero" and int(layer) >= model.spec.layers and rest.endswith(RESIDUAL_OUTPUTS):
                    parameter.zero_()
        if grown.shared is not None and model.shared is not None:
            grown.shared.grow_depth(model.shared, originals, keep=self.order == "zero")
        return grown


def _stacked_state(phase: EarlierPhase, originals: Sequence[int], once: Collection[str]) -> dict[str, Tensor]:
    """Return the optimizer's state at the end of a phase, by name, with that of each layer at its copies.

    Parameters that all layers share begin without a state: they have another shape now.

    Args:
        phase: before the growth.
        originals: the layer that each layer of the result is a copy of.
        once: names of the parameters that stay as they are.
    """
    before = phase.optimizer()
    state = {name: one for name, one in before.items() if name.rpartition("/")[0] in once}
    for place, original in enumerate(originals):
        own = f"layers.{original}."
        copied = {name.removeprefix(own): one for name, one in before.items() if name.startswith(own)}
        state |= {f"layers.{place}.{name}": one.clone() for name, one in copied.items()}
    return state
