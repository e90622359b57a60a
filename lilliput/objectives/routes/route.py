"""Which layers a training position runs through, and on what input."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lilliput.model import LanguageModel


class Route(Protocol):
    """A route as recipes write it."""

    def __call__(
        self, model: LanguageModel, x: Tensor, targets: Tensor, document_ids: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Input embeddings [B, L, D], targets [B, L, S], documents [B, L] -> what the head reads [B, L, D]."""
        ...


@dataclass(frozen=True, kw_only=True)
class FullDepth:
    """Ordinary training: every layer, on the embedded input."""

    def __call__(
        self, model: LanguageModel, x: Tensor, targets: Tensor, document_ids: Tensor, generator: torch.Generator
    ) -> Tensor:
        return model.forward_layers(x, document_ids=document_ids)
