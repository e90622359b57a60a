"""Language modelling = a bag (what a position holds), a route (which layers run) and terms (what is summed up).

Pretraining, instruction tuning and distillation differ in their data and weights only. Shapes: B rows, L positions,
S tokens in a bag, D width.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from lilliput.base.protocols import check_module
from lilliput.data.batch import Batch
from lilliput.model import LanguageModel
from lilliput.objectives.noise import Noise
from lilliput.objectives.objective import CROSS_ENTROPY, Losses, Parts, bags, same_document_mask
from lilliput.objectives.routes.route import FullDepth, Route, RouteInput, RouteModule
from lilliput.objectives.terms import CrossEntropy, Term, combined_coefficients
from lilliput.ops.fused_linear_cross_entropy import LinearCrossEntropy, LossCoefficients, fused_linear_cross_entropy


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

    @property
    def headline(self) -> str:
        return CROSS_ENTROPY

    def denominator(self, batch: Batch) -> float:
        """Return the summed weight of the targets: every token of every bag but a row's first that is a target."""
        _, weight = bags(batch.weight, self.bag)
        return float((weight * same_document_mask(batch.document_ids, self.bag)).sum())

    def build(self, model: LanguageModel, parts: Parts) -> nn.Module:
        return NextTokenModule(self, model, parts(self.route))


class NextTokenModule(nn.Module):
    """Losses of a batch; the language model inside stays callable as `.model`."""

    def __init__(self, spec: NextToken, model: LanguageModel, route: nn.Module):
        super().__init__()
        self.spec, self.model, self.route = spec, model, route
        check_module(route, RouteModule, built_by=spec.route)

    @property
    def variants(self) -> int:
        return cast(RouteModule, self.route).variants

    def active(self, variant: int) -> Iterable[nn.Parameter]:
        return cast(RouteModule, self.route).active(variant)

    def forward(
        self, batch: Batch, denominator: float | Tensor, variant: int, progress: Tensor, noise: Noise
    ) -> Losses:
        size = self.spec.bag
        inputs, targets = bags(batch.tokens, size)
        documents, target_documents = bags(batch.document_ids, size)
        weight = bags(batch.weight, size)[1] * same_document_mask(batch.document_ids, size) / size
        coefficients = combined_coefficients(self.spec.terms)
        totals: list[Tensor] = []
        terms: dict[str, Tensor] = {}
        # No variable holds the embedded input while the loss is computed: 32 MB of Llama 194 M.
        streams = self.route(
            RouteInput(self.model.embed(inputs), targets, documents[..., -1], target_documents[..., 0], batch.row),
            variant,
            progress,
            noise,
        )
        for routed in streams:
            charged = weight if routed.weight is None else weight * routed.weight[:, None, None]
            losses = self._cross_entropy(routed.hidden, targets, charged, coefficients)
            charge, share = charged.sum(dim=-1), size / denominator
            totals.append(losses.total * share)
            prefix = f"{routed.name}/" if routed.name else ""
            for term in self.spec.terms:
                terms[prefix + term.name] = term.coefficients.combine(losses.loss, losses.lse, charge) * share
        return Losses(sum(totals[1:], totals[0]), terms)

    def evaluate(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Return nats and weight of all targets, whatever the bag in training: released models read single tokens."""
        x = self.model.embed(batch.tokens[:, :-1, None])
        hidden = cast(RouteModule, self.route).evaluate(x, batch.document_ids[:, :-1])
        if hidden is None:
            return None
        weight = batch.weight[:, 1:, None]
        losses = self._cross_entropy(hidden, batch.tokens[:, 1:, None], weight, LossCoefficients(cross_entropy=1.0))
        return losses.loss.cpu().double().sum(), weight.sum()  # MPS has no fp64

    def _cross_entropy(
        self, hidden: Tensor, targets: Tensor, weight: Tensor, coefficients: LossCoefficients
    ) -> LinearCrossEntropy:
        return fused_linear_cross_entropy(
            self.model.norm(hidden),
            self.model.head_weight,
            targets,
            weight,
            softcap=self.model.spec.logit_softcap,
            coefficients=coefficients,
        )
