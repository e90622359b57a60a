"""An objective of another kind than language modeling, as somebody outside of the package might write one.

A denoiser by halves: noise is added to the embedded input, and either the lower or the upper half of the layers learns
to predict the next token all the same, while the output stays near that of the model which the phase began with. It
owns a learned amount of noise and a small network, draws numbers, has two variants, a headline of its own, a frozen
copy of the first weights, and a buffer that counts.
"""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from lilliput.objectives.bags import bags
from lilliput.objectives.objective import Losses


@dataclass(frozen=True, kw_only=True)
class Halves:
    """Train one half of the layers a step; `pull` weighs the distance from the first weights."""

    pull: float = 0.1
    tokens_per_position: int = 1
    headline: str = "denoising"

    def row_length(self, length):
        return length + 1

    def denominator(self, batch):
        return float(batch.weight[:, 1:].sum())

    def build(self, model, parts):
        return HalvesModule(self, model)


class HalvesModule(nn.Module):
    variants = 2

    def __init__(self, spec, model):
        super().__init__()
        self.spec, self.model = spec, model
        self.reference = copy.deepcopy(model).requires_grad_(False)
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.network = nn.Linear(model.spec.width, model.spec.width)
        self.register_buffer("rows_seen", torch.zeros(()))

    def active(self, variant):
        middle = len(self.model.layers) // 2
        half = self.model.layers[:middle] if variant == 0 else self.model.layers[middle:]
        return [*half.parameters(), self.scale, *self.network.parameters()]

    def forward(self, batch, denominator, variant, progress, noise):
        (inputs, targets), (documents, _) = bags(batch.tokens, 1), bags(batch.document_ids, 1)
        weight = batch.weight[:, 1:]
        x = self.model.embed(inputs)
        drawn = noise.normal(batch.row, *x.shape[1:], stream=variant)
        with torch.no_grad():
            self.rows_seen += len(batch.row)
            near = self.reference.forward_layers(self.reference.embed(inputs), document_ids=documents[..., 0])
        noisy = x + self.scale * (1 - progress) * 0.1 * self.network(drawn)
        hidden = self.model.forward_layers(noisy, document_ids=documents[..., 0])
        loss = F.cross_entropy(self.model.logits(hidden).flatten(0, 1).float(), targets.flatten(), reduction="none")
        loss = (loss * weight.flatten()).sum() / denominator
        distance = ((hidden - near).square().mean(-1) * weight).sum() / denominator
        return Losses(loss + self.spec.pull * distance, {"denoising": loss.detach(), "distance": distance.detach()})

    def evaluate(self, batch):
        inputs, targets = batch.tokens[:, :-1], batch.tokens[:, 1:]
        loss = F.cross_entropy(self.model(inputs).flatten(0, 1).float(), targets.flatten(), reduction="none")
        return (loss * batch.weight[:, 1:].flatten()).sum(), batch.weight[:, 1:].sum()
