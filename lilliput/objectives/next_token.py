"""Language modelling = a bag (what a position holds), a route (which layers run) and terms (what is summed up).

Pretraining, instruction tuning and distillation differ in their data and weights only. Shapes: B rows, L positions,
S tokens in a bag, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lilliput.data.batch import Batch
from lilliput.model import LanguageModel
from lilliput.objectives.objective import Losses, bags, same_document_mask
from lilliput.objectives.routes.route import FullDepth, Route
from lilliput.objectives.terms import CrossEntropy, Term, combined_coefficients
from lilliput.ops.fused_linear_cross_entropy import fused_linear_cross_entropy


@dataclass(frozen=True, kw_only=True)
class NextToken:
    """Predict the next bag of tokens; with `bag=1`, the next token."""

    bag: int = 1
    route: Route = FullDepth()
    terms: tuple[Term, ...] = (CrossEntropy(),)

    def row_length(self, length: int) -> int:
        return (length + 1) * self.bag

    @property
    def tokens_per_position(self) -> int:
        return self.bag

    def build(self, model: LanguageModel) -> nn.Module:
        return NextTokenModule(self, model)


class NextTokenModule(nn.Module):
    """(batch, denominator, generator) -> Losses; the language model inside stays callable as `.model`."""

    def __init__(self, spec: NextToken, model: LanguageModel):
        super().__init__()
        self.spec, self.model = spec, model

    def forward(self, batch: Batch, denominator: float | Tensor, generator: torch.Generator) -> Losses:
        size = self.spec.bag
        inputs, targets = bags(batch.tokens, size)
        documents, _ = bags(batch.document_ids, size)
        weight = bags(batch.weight, size)[1] * same_document_mask(batch.document_ids, size) / size
        hidden = self.spec.route(self.model, self.model.embed(inputs), targets, documents[..., -1], generator)
        total, loss, lse = fused_linear_cross_entropy(
            self.model.norm(hidden),
            self.model.head_weight,
            targets,
            weight,
            softcap=self.model.spec.logit_softcap,
            coefficients=combined_coefficients(self.spec.terms),
        )
        charge, share = weight.sum(dim=-1), size / denominator
        return Losses(
            total * share, {term.name: term.coefficients.combine(loss, lse, charge) * share for term in self.spec.terms}
        )
