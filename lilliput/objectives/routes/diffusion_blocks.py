"""DiffusionBlocks (arXiv 2506.14202): every block of layers learns alone, as a denoiser of its own range of noise.

    y = embedding of the target, scaled to `data_std` a coordinate        z = y + sigma e
    D(z) = c_skip z + c_out F(c_in z, clean past, c_noise)                F: the layers of one block
    loss = min((sigma^2 + data_std^2) / (sigma data_std)^2, max_loss_weight) * cross-entropy(head(D(z)), target)

The ranges of the blocks hold equal probability; the first block in order of processing has the most noise. Every block
reads the embeddings, none reads another one's output. What a bag is to be predicted as is the mean of its embeddings.

Shapes: B rows, L positions, D width.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from math import sqrt
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lilliput.base.errors import RecipeError
from lilliput.base.spec import LATER
from lilliput.model import LanguageModel, ModelSpec
from lilliput.nn.block import stream_precision
from lilliput.nn.modulation import VECTORS, LayerModulation, layer_modulations
from lilliput.objectives.noise import Noise
from lilliput.objectives.objective import Parts
from lilliput.objectives.routes.noise_conditioning import NoiseConditioning
from lilliput.objectives.routes.noise_levels import NoiseLevels
from lilliput.objectives.routes.preconditioning import loss_weight, preconditioning
from lilliput.objectives.routes.route import Routed, RouteInput

CLEAN = "clean"
"""Name of the stream that predicts without noise."""
LEVEL, EPSILON = 0, 1
"""Streams of noise: one number a row for its level, and what is added to the targets."""


@dataclass(frozen=True, kw_only=True)
class DiffusionBlocks:
    """A route through one block of layers a step. The numbers are the paper's for text where it gives them."""

    blocks: int = 4
    overlap: float = 0.1
    """A block's range [low, high] is widened by the factor (high / low)^overlap at both ends."""
    mean: float = -1.2
    """Mean of log sigma."""
    std: float = 1.2
    """Standard deviation of log sigma."""
    lowest: float = 0.002
    """The least sigma."""
    highest: float = 80.0
    """The largest sigma."""
    data_std: float = 0.5
    embeddings: Literal["data_std", "unit"] = "data_std"
    """Length of embeddings before noise is added: a root mean square of `data_std`, or a length of 1."""
    max_loss_weight: float | None = 20.0
    """Largest weight of a row: almost clean targets are decodable already, and unbounded would drown the others. None
    for no bound."""
    conditioning: Literal["none", "add", "adaln"] = "add"
    """Conditioning on sigma: none, or a small network outside of the model that is gone with the phase. What it returns
    is added to what a block reads, or makes the norms of its layers adaptive, as in the paper; that is slower."""
    clean_share: float = 0.0
    """Share of the loss that is ordinary cross-entropy, without noise and through all layers, of which the block's
    alone learn. Above 0 held-out numbers are defined."""
    freeze_shared: bool = field(default=False, metadata=LATER)
    """Leave embedding, final norm, head and what mixers share as they are. Blocks then train nothing in common, and
    machines with blocks of their own have no gradient to send each other."""

    def __post_init__(self) -> None:
        where = "DiffusionBlocks"
        if self.blocks < 2:
            raise RecipeError(f"blocks is {self.blocks}", where=where, hint="give at least 2, or leave the route out")
        for name in ("overlap", "clean_share"):
            if not 0 <= getattr(self, name) < 1:
                raise RecipeError(
                    f"{name} is {getattr(self, name)}", where=where, hint="give a number from 0 to below 1"
                )
        if not 0 < self.lowest < self.highest:
            raise RecipeError(
                f"sigma from {self.lowest} to {self.highest} is no range", where=where, hint="0 < lowest < highest"
            )
        for name in ("std", "data_std", "max_loss_weight"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise RecipeError(f"{name} is {value}", where=where, hint="give a number above 0")
        for name, known in (("conditioning", ("none", "add", "adaln")), ("embeddings", ("data_std", "unit"))):
            if getattr(self, name) not in known:
                hint = f"one of {', '.join(known)}"
                raise RecipeError(f"{name} cannot be {getattr(self, name)!r}", where=where, hint=hint)

    @property
    def levels(self) -> NoiseLevels:
        """The distribution of sigma."""
        return NoiseLevels(mean=self.mean, std=self.std, lowest=self.lowest, highest=self.highest)

    def flops(self, spec: ModelSpec, length: int) -> int:
        """Return a third of the operations of a step, a position, on average over the blocks; see `CountedRoute`.

        Both streams run through the layers of a block, and one through the head. Without noise, layers below the block
        are run and no more, and those above have gradients of what they read and none of their weights.
        """
        head = 2 * spec.width * spec.vocab
        body = spec.flops(length) - head
        clean = body * (self.blocks + 1) // (2 * self.blocks) + head if self.clean_share else 0
        return 2 * body // self.blocks + head + clean

    def build(self, model: LanguageModel, parts: Parts) -> nn.Module:
        return DiffusionBlocksModule(self, model)


PORT = DiffusionBlocks(lowest=5.0, highest=10.0, overlap=0.05, embeddings="unit", max_loss_weight=None)
"""The settings of a public port to text, https://github.com/metric-space/AutoregressiveDiffusionBlocks: targets are
never almost clean, so that a block has to read the text before them."""


class DiffusionBlocksModule(nn.Module):
    """The blocks of a model, each with a range of noise and a network that tells it the level."""

    def __init__(self, spec: DiffusionBlocks, model: LanguageModel):
        """Cut the layers of a model into blocks, of which some may have one layer more.

        Raises:
            RecipeError: there are fewer layers than blocks.
        """
        super().__init__()
        self.spec, self.model = spec, model
        self.ranges = spec.levels.ranges(spec.blocks, spec.overlap)
        self.layers = blocks_of(len(model.layers), spec.blocks)
        vectors = {"none": [], "add": [1] * spec.blocks, "adaln": [VECTORS * _count(each) for each in self.layers]}
        self.conditioning = nn.ModuleList(
            NoiseConditioning(count * model.spec.width) for count in vectors[spec.conditioning]
        )

    @property
    def variants(self) -> int:
        return self.spec.blocks

    def active(self, variant: int) -> Iterable[nn.Parameter]:
        """The layers of a block and its network; embedding, final norm and head, which all blocks share."""
        yield from self.model.layers[self.layers[variant]].parameters()
        if self.conditioning:
            yield from self.conditioning[variant].parameters()
        if not self.spec.freeze_shared:
            yield from self._shared(variant)

    def _shared(self, variant: int) -> Iterable[nn.Parameter]:
        """Yield what a block trains of all that belongs to several."""
        model = self.model
        yield from model.embedding.parameters()
        if model.shared is not None and any(row is not None for row in model.shared()[self.layers[variant]]):
            yield from cast(nn.Module, model.shared).parameters()
        yield from model.norm.parameters()
        if not model.spec.tie_embeddings:
            yield from model.output.parameters()

    def forward(self, rows: RouteInput, variant: int, progress: Tensor, noise: Noise) -> list[Routed]:
        spec, documents = self.spec, (rows.document_ids, rows.target_document_ids)
        sigma = spec.levels.draw(noise.uniform(rows.row, stream=LEVEL), self.ranges[variant])
        y = self.scaled(self.model.embed(rows.targets))
        z = y + sigma[:, None, None] * noise.normal(rows.row, *y.shape[1:], stream=EPSILON)
        hidden = self.denoise(self.scaled(rows.x), z, sigma, variant, *documents).to(rows.x.dtype)
        weight = loss_weight(sigma, spec.data_std, spec.max_loss_weight)
        streams = [Routed("", hidden, weight * (1 - spec.clean_share))]
        if spec.clean_share:
            predicted = self.predict(rows.x, variant, rows.document_ids)
            streams.append(Routed(CLEAN, predicted, torch.full_like(weight, spec.clean_share)))
        return streams

    def scaled(self, x: Tensor) -> Tensor:
        """Return embeddings [B, L, D] in the length that noise is added to, in fp32 at least."""
        length = 1.0 if self.spec.embeddings == "unit" else self.spec.data_std * sqrt(x.shape[-1])
        return length * F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)

    def denoise(
        self,
        clean: Tensor,
        z: Tensor,
        sigma: Tensor,
        variant: int,
        document_ids: Tensor | None = None,
        target_document_ids: Tensor | None = None,
    ) -> Tensor:
        """Return D(z), what a block takes noised targets for, [B, L, D].

        Args:
            clean: scaled embeddings of the inputs [B, L, D].
            z: noised embeddings of the targets [B, L, D].
            sigma: level of each row [B].
            variant: the block.
            document_ids, target_document_ids: see `LanguageModel.forward_pair`.
        """
        read, scaled_z = self.inputs(clean, z, sigma, variant)
        documents, modulations = (document_ids, target_document_ids), self.modulations(sigma, variant)
        _, made = self.model.forward_pair(read, scaled_z, self.layers[variant], *documents, modulations)
        return self.combine(z, made, sigma)

    def inputs(self, clean: Tensor, z: Tensor, sigma: Tensor, variant: int) -> tuple[Tensor, Tensor]:
        """Return what the layers of a block read of the clean stream and of the noised one."""
        scales = preconditioning(sigma, self.spec.data_std)
        noisy = scales.into[:, None, None] * z
        if self.spec.conditioning == "add":
            level = self.conditioning[variant](scales.noise)
            clean, noisy = clean + level, noisy + level
        narrow = stream_precision(self.model.embedding.weight)
        return clean.to(narrow), noisy.to(narrow)

    def modulations(self, sigma: Tensor, variant: int) -> list[LayerModulation] | None:
        """Return the adaptive norms of the layers of a block; None where they have none."""
        if self.spec.conditioning != "adaln":
            return None
        numbers = self.conditioning[variant](preconditioning(sigma, self.spec.data_std).noise)
        narrow = stream_precision(self.model.embedding.weight)
        return layer_modulations(numbers.to(narrow), _count(self.layers[variant]))

    def combine(self, z: Tensor, made: Tensor, sigma: Tensor) -> Tensor:
        """Return D(z) from what the layers of a block made."""
        scales = preconditioning(sigma, self.spec.data_std)
        return scales.skip[:, None, None] * z + scales.out[:, None, None] * made

    def predict(self, x: Tensor, variant: int, document_ids: Tensor) -> Tensor:
        """Return what all layers make of embedded inputs, [B, L, D]; gradients reach those of a block alone."""
        model, layers = self.model, self.layers[variant]
        with torch.no_grad() if layers.start else nullcontext():
            x = model.forward_layers(x, slice(0, layers.start), document_ids)
        x = model.forward_layers(x, layers, document_ids)
        with _frozen(*model.layers[layers.stop :], *(() if model.shared is None else (cast(nn.Module, model.shared),))):
            return model.forward_layers(x, slice(layers.stop, None), document_ids)

    def evaluate(self, x: Tensor, document_ids: Tensor) -> Tensor | None:
        """Return what all layers make of the input where they learn that, too; the method itself has no likelihood."""
        return self.model.forward_layers(x, document_ids=document_ids) if self.spec.clean_share else None


def blocks_of(layers: int, blocks: int) -> list[slice]:
    """Return the layers of each block, in order of processing.

    Raises:
        RecipeError: there are fewer layers than blocks.
    """
    if layers < blocks:
        raise RecipeError(
            f"{layers} layers cannot be cut into {blocks} blocks",
            where="DiffusionBlocks(blocks=) with ModelSpec(layers=)",
            hint="give at most as many blocks as the model has layers",
        )
    ends = [layers * block // blocks for block in range(blocks + 1)]
    return [slice(start, stop) for start, stop in pairwise(ends)]


def _count(layers: slice) -> int:
    return layers.stop - layers.start


@contextmanager
def _frozen(*modules: nn.Module) -> Iterator[None]:
    """Take gradients through modules, and none of their parameters, in a `with` block."""
    parameters = [one for module in modules for one in module.parameters() if one.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
