"""More layers from trained ones: a model of n layers goes on as one of n times k (G_stack, arXiv 2405.15319).

    stack         0 1 2  0 1 2      whole copies one after another
    interleaved   0 0 1 1 2 2       each layer followed by its copy
    zero          0 1 2  . . .      whole copies that add nothing to the stream yet

Only `zero` computes at first what the model computed before; the paper's largest speed-up is that of `stack`. What all
layers share, such as lower bounds of gates that rise with the depth, is spread over the new depth.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from lilliput.base.errors import RecipeError
from lilliput.growth.growth import Growth, Lineage
from lilliput.model import LanguageModel, ModelSpec
from lilliput.nn.init import RESIDUAL_OUTPUTS
from lilliput.nn.per_layer import mixer_at

Order = Literal["stack", "interleaved", "zero"]


@dataclass(frozen=True, kw_only=True)
class Stack(Growth):
    """Repeat the layers; embedding, head and final norm stay as they are, averaged weights end here.

    The phase after it begins with fresh optimizer moments and a schedule of its own, as every phase does.
    """

    times: int = 2
    """Layers after, over layers before; 1 changes nothing."""
    order: Order = "stack"
    """The order of the copies, as drawn above."""

    def __post_init__(self) -> None:
        if self.times < 1:
            raise RecipeError(
                f"times is {self.times}", where="Stack", hint="times must be at least 1; 2 doubles the layers"
            )
        if self.order not in get_args(Order):
            raise RecipeError(
                f"there is no order {self.order!r}", where="Stack.order", hint=f"one of {', '.join(get_args(Order))}"
            )

    def shape(self, spec: ModelSpec) -> ModelSpec:
        """The shape with more layers.

        Raises:
            RecipeError: a copy would stand where the rotary rule treats it unlike its original.
        """
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
                    hint='stack an even number of layers with order="stack" or "zero", or rotate in all layers alike',
                )
        return replace(spec, layers=spec.layers * self.times)

    def originals(self, layers: int) -> list[int]:
        """Which of the `layers` layers each layer of the result is made from."""
        if self.order == "interleaved":
            return [layer // self.times for layer in range(layers * self.times)]
        return [layer % layers for layer in range(layers * self.times)]

    def grow(self, lineage: Lineage, seed: int) -> Lineage:
        if self.times == 1:
            return lineage
        return replace(lineage, model=self._stacked(lineage.model), average={})

    def _stacked(self, model: LanguageModel) -> LanguageModel:
        """A model with storage of its own: copies are equal at first and then learn apart."""
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
