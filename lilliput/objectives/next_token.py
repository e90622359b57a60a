"""Language modelling = a bag (what a position holds), a route (which layers run) and terms (what is charged).

Pretraining, instruction tuning and distillation differ in their data and weights only. Shapes: B rows, L positions,
S tokens in a bag, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lilliput.data.batch import Batch
from lilliput.model import LanguageModel
from lilliput.objectives.bag import bags, is_target
from lilliput.objectives.objective import Losses
from lilliput.objectives.routes.route import FullDepth, Route
from lilliput.objectives.terms import CrossEntropy, Term, price_of
from lilliput.ops.fused_linear_cross_entropy import bag_loss


@dataclass(frozen=True, kw_only=True)
class NextBag:
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
        return NextBagModule(self, model)


class NextBagModule(nn.Module):
    """(batch, charged, generator) -> Losses; the language model inside stays callable as `.model`."""

    def __init__(self, spec: NextBag, model: LanguageModel):
        super().__init__()
        self.spec, self.model = spec, model

    def forward(self, batch: Batch, charged: float | Tensor, generator: torch.Generator) -> Losses:
        size = self.spec.bag
        inputs, targets = bags(batch.tokens, size)
        documents, _ = bags(batch.segments, size)
        weight = bags(batch.weight, size)[1] * is_target(batch.segments, size) / size
        hidden = self.spec.route(self.model, self.model.embed(inputs), targets, documents[..., -1], generator)
        total, loss, lse = bag_loss(
            self.model.norm(hidden),
            self.model.head_weight,
            targets,
            weight,
            cap=self.model.spec.logit_cap,
            price=price_of(self.spec.terms),
        )
        charge, share = weight.sum(dim=-1), size / charged
        return Losses(total * share, {term.name: term.price.of(loss, lse, charge) * share for term in self.spec.terms})
