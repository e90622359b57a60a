"""First weights: one rule a kind of parameter, each drawn from a seed of its own, the same on every device."""

from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from torch import nn

from lilliput.base.errors import RecipeError
from lilliput.base.files import seed_of
from lilliput.base.spec import LATER

RESIDUAL_OUTPUTS = ("mixer.output.weight", "ffn.down.weight")
"""Names (by suffix) of the matrices that write to the residual stream."""
QUERY_NORM = "mixer.query_norm.weight"
"""Name (by suffix) of the weights of a norm of queries."""


class InitSpec(Protocol):
    """First weights as recipes write them."""

    @property
    def std(self) -> float:
        """Standard deviation of the embedding, and of most matrices."""
        ...

    def initialize(self, model: nn.Module, layers: int, seed: int) -> None:
        """Fill every parameter of `model` in place; norms and gates know their own neutral value."""
        ...


@dataclass(frozen=True, kw_only=True)
class Normal:
    """Matrices and embeddings from N(0, std^2); those that write to the stream divided by sqrt(2 layers) (GPT-2)."""

    std: float = 0.02
    query_gain: float = field(default=1.0, metadata=LATER)
    """First weights of the norm of queries (`qk_norm`): the inverse temperature that attention begins with."""

    def initialize(self, model: nn.Module, layers: int, seed: int) -> None:
        fill(model, seed, std=self.std, outputs=self.std / (2 * layers) ** 0.5)
        if self.query_gain != 1.0:
            fill_query_norms(model, self.query_gain)


@dataclass(frozen=True, kw_only=True)
class UnscaledNormal:
    """All matrices and embeddings from N(0, std^2), those that write to the stream, too, however deep it is."""

    std: float = 0.02

    def initialize(self, model: nn.Module, layers: int, seed: int) -> None:
        fill(model, seed, std=self.std, outputs=self.std)


def fill(model: nn.Module, seed: int, *, std: float, outputs: float) -> None:
    """Draw matrices with one standard deviation, those that write to the stream with another; reset what is left.

    Args:
        model: the model to fill.
        seed: seed of the weights.
        std: standard deviation of matrices.
        outputs: standard deviation of matrices that write to the stream.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            key = f"{name}.weight"
            fill_normal(module.weight, outputs if key.endswith(RESIDUAL_OUTPUTS) else std, f"{seed}/{key}")
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif next(module.parameters(recurse=False), None) is not None:
            with torch.random.fork_rng(devices=[]):  # those of PyTorch draw from its generator
                torch.manual_seed(seed_of(f"{seed}/{name}"))
                cast(Any, module).reset_parameters()


def fill_query_norms(model: nn.Module, gain: float) -> None:
    """Set the weights of the norms of queries.

    Raises:
        RecipeError: no mixer of the model has one.
    """
    norms = [weight for name, weight in model.named_parameters() if name.endswith(QUERY_NORM)]
    if not norms:
        raise RecipeError(
            f"query_gain={gain:g} has no effect: no mixer norms its queries",
            where="Normal(query_gain=...)",
            hint="leave it out, or give GQA(qk_norm=True)",
        )
    for weight in norms:
        nn.init.constant_(weight, gain)


def check_fillable(layer: nn.Module) -> None:
    """Refuse a layer with parameters or buffers that would begin as whatever memory holds.

    Raises:
        RecipeError: a module of it has parameters and no `reset_parameters`, or a buffer, which no checkpoint has.
    """
    for name, module in layer.named_modules():
        own = [parameter for parameter, _ in module.named_parameters(recurse=False)]
        if own and not isinstance(module, nn.Linear | nn.Embedding) and not hasattr(module, "reset_parameters"):
            raise RecipeError(
                f"{type(module).__name__} has parameters ({', '.join(own)}) but no reset_parameters",
                where=f"{name} of a layer",
                hint="define reset_parameters, which fills them in place",
            )
        for buffer, _ in module.named_buffers(recurse=False):
            raise RecipeError(
                f"{type(module).__name__} has a buffer, {buffer}, which no checkpoint keeps",
                where=f"{name} of a layer",
                hint="compute it where it is used, or make it a parameter",
            )


def fill_normal(tensor: torch.Tensor, std: float, key: str) -> None:
    """Draw `tensor` from N(0, std^2) in place, with a CPU generator seeded by `key`."""
    generator = torch.Generator().manual_seed(seed_of(key))
    with torch.no_grad():
        tensor.copy_(torch.empty(tensor.shape).normal_(0.0, std, generator=generator))
