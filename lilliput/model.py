"""A language model: three separable verbs, no loss, no optimizer.

    tokens [B, L, S] --embed--> [B, L, D] --run--> [B, L, D] --head--> logits [B, L, V]

A position holds a bag of S tokens, and its embedding is their mean; S = 1 is ordinary training and all decoding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, cast

import torch
from torch import Tensor, nn

from lilliput.base.protocols import check_module, check_parts
from lilliput.base.spec import check_range, check_softcap, to_plain
from lilliput.nn.block import Block, GateSpec, Ungated, stream_precision
from lilliput.nn.ffn import FFNSpec
from lilliput.nn.init import InitSpec, Normal
from lilliput.nn.mixer import Mixer, MixerSpec, PairMixer, State
from lilliput.nn.modulation import LayerModulation
from lilliput.nn.norm import NormSpec, RMSNorm
from lilliput.ops.embedding_bag import embedding_bag
from lilliput.ops.linear import linear_in_fp32
from lilliput.ops.softcap import softcap, to_fp32

ALL = slice(None)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The shape of a model, in the words of a model card."""

    vocab: int
    width: int
    layers: int
    mixer: MixerSpec
    ffn: FFNSpec
    norm: NormSpec = RMSNorm()
    gate: GateSpec = Ungated()
    tie_embeddings: bool = True
    """True if the head is the embedding itself."""
    init: InitSpec = Normal()
    logit_softcap: float | None = None
    """Soft-cap of the logits, c * tanh(z / c) in fp32, in training and ever after; None for none."""

    def __post_init__(self) -> None:
        check_range("ModelSpec", 1, inf, vocab=self.vocab, width=self.width, layers=self.layers)
        check_softcap("ModelSpec", logit_softcap=self.logit_softcap)
        check_parts(self)

    @property
    def shape(self) -> "ModelSpec":
        """Itself; what a model starts from may also be a checkpoint, which has its shape from elsewhere."""
        return self

    def identity(self) -> Any:
        """Return what decides the model besides the seed, as JSON; a model without a cap mentions none."""
        plain = to_plain(self)
        return plain if self.logit_softcap else {key: value for key, value in plain.items() if key != "logit_softcap"}

    def build(self, seed: int) -> "LanguageModel":
        """A model with its first weights, a function of the spec and the seed."""
        model = self.skeleton()
        model.to_empty(device="cpu")
        self.init.initialize(model, self.layers, seed)
        return model

    def skeleton(self) -> "LanguageModel":
        """The model without storage (meta device): for counting, or for weights that are about to be loaded."""
        with torch.device("meta"):
            return LanguageModel(self)

    def flops(self, length: int) -> int:
        """Forward floating-point operations a position in rows of `length`; a training step costs three times that."""
        ffn = 2 * 3 * self.width * self.ffn.inner
        mixers = sum(self.mixer.flops(self.width, length, layer) for layer in range(self.layers))
        return mixers + self.layers * ffn + 2 * self.width * self.vocab

    def state_entries(self, length: int) -> int:
        """Numbers in the states of one row after `length` positions, of all layers together."""
        return sum(self.mixer.state_entries(self.width, length, layer) for layer in range(self.layers))

    @property
    def states_grow(self) -> bool:
        """Return whether states grow with the text, as keys and values do; those of a recurrence do not."""
        return self.state_entries(2) > self.state_entries(1)


class LanguageModel(nn.Module):
    """Embedding, layers, final norm and head."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.spec = spec
        # Drawn by `init` alone: PyTorch's own drawing on the device `meta` imports its compiler.
        self.embedding = nn.Embedding.from_pretrained(torch.empty(spec.vocab, spec.width), freeze=False)
        self.shared = spec.mixer.shared_parameters(spec.width, spec.layers)
        self.layers = nn.ModuleList(
            Block(spec.width, layer, spec.mixer, spec.ffn, spec.norm, spec.gate) for layer in range(spec.layers)
        )
        self.norm = spec.norm.build(spec.width)
        if not spec.tie_embeddings:
            self.output = nn.Linear(spec.width, spec.vocab, bias=False)

    @property
    def head_weight(self) -> Tensor:
        """The matrix of the head, [V, D]; the embedding itself where they are tied."""
        return self.embedding.weight if self.spec.tie_embeddings else self.output.weight

    def embed(self, tokens: Tensor, shares: Tensor | None = None) -> Tensor:
        """Token ids [B, L, S] -> mean embedding of each bag [B, L, D], in the precision of the stream.

        `shares` [B, L, S] is what each token counts instead of 1 / S.
        """
        weight = self.embedding.weight
        return embedding_bag(tokens, weight, stream_precision(weight), shares=shares)

    def forward_layers(self, x: Tensor, layers: slice = ALL, document_ids: Tensor | None = None) -> Tensor:
        """Run a slice of the layers over whole rows, as in training.

        Args:
            x: residual stream [B, L, D].
            layers: which layers.
            document_ids: document numbers [B, L]; None for one document a row.

        Returns:
            the stream after those layers [B, L, D].
        """
        for block, shared in self.layers_with_shared(layers):
            x = block(x, document_ids, *shared)
        return x

    def forward_pair(
        self,
        clean: Tensor,
        noisy: Tensor,
        layers: slice = ALL,
        document_ids: Tensor | None = None,
        target_document_ids: Tensor | None = None,
        modulations: Sequence[LayerModulation | None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run a slice of the layers over whole rows and over a noised stream that reads them.

        The noised position j stands for the target at j + 1. It comes out as the last position of a row would that
        holds the clean positions up to j and then itself, in the target's document.

        Args:
            clean, noisy: residual stream, and the noised targets, [B, L, D] each.
            layers: which layers.
            document_ids, target_document_ids: document numbers of both [B, L]; None for one document a row.
            modulations: adaptive norms, one a layer of the slice; None for layers as they are.

        Returns:
            both streams after those layers, [B, L, D] each; the clean one is that of `forward_layers`.

        Raises:
            RecipeError: a mixer is no `PairMixer`.
        """
        assert clean.shape == noisy.shape, "a noised position for each clean one"
        assert (document_ids is None) == (target_document_ids is None), "documents of inputs and of targets, or neither"
        parts, documents = self.layers_with_shared(layers), (document_ids, target_document_ids)
        for (block, shared), modulation in zip(parts, modulations or [None] * len(parts), strict=True):
            check_module(block.mixer, PairMixer, built_by=self.spec.mixer)
            clean, noisy = block.forward_pair(clean, noisy, *documents, *shared, modulation=modulation)
        return clean, noisy

    def empty_states(self, rows: int, capacity: int) -> list[State]:
        """Return the state of each layer before the first position of rows of at most `capacity` positions."""
        return [cast(Mixer, cast(Block, block).mixer).empty_state(rows, capacity) for block in self.layers]

    def decode(
        self,
        x: Tensor,
        states: Sequence[State],
        positions: Tensor,
        lengths: Tensor,
        layers: slice = ALL,
        modulations: Sequence[LayerModulation] | None = None,
    ) -> Tensor:
        """Run a slice of the layers over the next positions of rows, which may differ in length.

        Args:
            x: residual stream [B, L, D]; rows are padded on the right.
            states: one a layer of the slice, changed in place.
            positions: of the first one of x in each row, [B] int64; positions + L is at most the states' capacity.
            lengths: how many positions of each row are no padding, [B] int64, from 0 to L.
            layers: which layers.
            modulations: as of `forward_pair`.

        Returns:
            the stream after those layers [B, L, D], in fp32 or fp64; anything where there is padding.
        """
        x, parts = to_fp32(x), self.layers_with_shared(layers)
        for (block, shared), state, modulation in zip(parts, states, modulations or [None] * len(parts), strict=True):
            x = block.decode(x, state, positions, lengths, *shared, modulation=modulation)
        return x

    def layers_with_shared(self, layers: slice = ALL) -> list[tuple[Block, tuple[Tensor, ...]]]:
        """Return each layer of a slice, and what it is handed of what mixers share."""
        every = [None] * self.spec.layers if self.shared is None else self.shared()
        shared = [() if row is None else (row,) for row in every[layers]]
        return list(zip(cast(list[Block], self.layers[layers]), shared, strict=True))

    def logits(self, x: Tensor) -> Tensor:
        """Residual stream [B, L, D] -> logits [B, L, V]; in fp32 where they are capped, or can be had so."""
        logits = linear_in_fp32(self.norm(x), self.head_weight)
        return logits if self.spec.logit_softcap is None else softcap(logits, self.spec.logit_softcap)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids [B, L] -> logits [B, L, V]: the three verbs in a row, for evaluation and parity."""
        return self.logits(self.forward_layers(self.embed(tokens[..., None])))

    def parameter_counts(self) -> dict[str, int]:
        """Parameters in `total` (tied ones once), in the `embedding` (with an untied head), and the rest."""
        total = sum(parameter.numel() for parameter in self.parameters())
        embedding = self.embedding.weight.numel() * (1 if self.spec.tie_embeddings else 2)
        return {"total": total, "embedding": embedding, "non_embedding": total - embedding}


def copy_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into the parameters of the same names, whatever their precision and device."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[name])
