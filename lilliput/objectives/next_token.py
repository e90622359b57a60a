"""Language modelling = a bag (what a position holds), targets (what it predicts), a route (which layers run) and terms
(what is summed up).

Pretraining, instruction tuning and distillation differ in their data and weights only. Shapes: B rows, L positions,
S tokens in a bag, A targets of a position, D width.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import cast

import torch
from torch import Tensor, nn

from lilliput.base.protocols import check_module
from lilliput.base.spec import LATER, check_range
from lilliput.data.batch import Batch
from lilliput.model import LanguageModel
from lilliput.objectives.bags import bags, of_one_document, target_mask
from lilliput.objectives.noise import Noise
from lilliput.objectives.objective import CROSS_ENTROPY, Losses, Parts
from lilliput.objectives.routes.route import FullDepth, Route, RouteInput, RouteModule
from lilliput.objectives.soft_targets import SoftTargets
from lilliput.objectives.stream_losses import cross_entropy, stream_losses
from lilliput.objectives.targets import MultiToken, PrefixToken, Targets, TargetShares
from lilliput.objectives.terms import CrossEntropy, Term
from lilliput.ops.fused_linear_cross_entropy import LossCoefficients


@dataclass(frozen=True, kw_only=True)
class NextToken:
    """Predict the next bag of tokens; with `bag=1`, the next token."""

    bag: int = 1
    route: Route = FullDepth()
    terms: tuple[Term, ...] = (CrossEntropy(),)
    targets: Targets = field(default=Targets(), metadata=LATER)
    further: MultiToken | None = field(default=None, metadata=LATER)
    """Tokens after the targets that are charged too; no term has them in its numbers."""
    prefix: PrefixToken | None = field(default=None, metadata=LATER)
    """Prefix tokens of the targets that are charged too; no term has them in its numbers."""
    soft: SoftTargets | None = field(default=None, metadata=LATER)
    """A teacher's tokens that are charged too, in positions of one token; no term has them in its numbers."""

    def __post_init__(self) -> None:
        check_range("NextToken", 1, inf, bag=self.bag)
        if self.soft is not None:
            self.soft.check_positions(self.bag, self.near)

    @property
    def near(self) -> int:
        """Targets of a position without those further ones."""
        return self.targets.count or self.bag

    @property
    def ahead(self) -> int:
        """Tokens after its own that a position is charged for."""
        return self.near + (self.further.count if self.further else 0)

    def row_length(self, length: int) -> int:
        return length * self.bag + self.ahead

    @property
    def tokens_per_position(self) -> int:
        return self.bag

    @property
    def headline(self) -> str:
        return CROSS_ENTROPY

    def denominator(self, batch: Batch) -> float:
        """Return the summed weight of the targets: every target of every position that counts."""
        near = torch.tensor(self.targets.shares(self.bag))
        return float((self.target_weight(batch)[..., : self.near] * near).sum())

    def target_weight(self, batch: Batch) -> Tensor:
        """Return the weights that the data gives targets, [B, L, A]; 0 for those that do not count."""
        _, weight = bags(batch.weight, self.bag, self.ahead)
        _, documents = bags(batch.document_ids, self.bag, self.ahead)
        return weight * target_mask(documents, self.near)

    def build(self, model: LanguageModel, parts: Parts) -> nn.Module:
        return NextTokenModule(self, model, parts(self.route))


class NextTokenModule(nn.Module):
    """Losses of a batch; the language model inside stays callable as `.model`."""

    def __init__(self, spec: NextToken, model: LanguageModel, route: nn.Module):
        super().__init__()
        self.spec, self.model, self.route = spec, model, route
        check_module(route, RouteModule, built_by=spec.route)
        device = model.head_weight.device
        self.shares = TargetShares(spec.bag, spec.targets, spec.further, spec.prefix, spec.soft, device)

    @property
    def variants(self) -> int:
        return cast(RouteModule, self.route).variants

    def active(self, variant: int) -> Iterable[nn.Parameter]:
        return cast(RouteModule, self.route).active(variant)

    def forward(
        self, batch: Batch, denominator: float | Tensor, variant: int, progress: Tensor, noise: Noise
    ) -> Losses:
        spec, near = self.spec, self.spec.near
        inputs, targets = bags(batch.tokens, spec.bag, spec.ahead)
        documents, target_documents = bags(batch.document_ids, spec.bag, spec.ahead)
        all_targets, weight, whole = self.shares.weighted_targets(batch, targets, spec.target_weight(batch), progress)
        # No variable holds the embedded input while the loss is computed: 32 MB of Llama 194 M.
        rows = targets[..., :near], documents[..., -1], target_documents[..., 0], batch.row
        streams = self.route(
            RouteInput(self.model.embed(of_one_document(inputs, documents)), *rows), variant, progress, noise
        )
        return stream_losses(
            self.model, spec.terms, streams, all_targets, weight, near / denominator, near=near, whole=whole
        )

    def evaluate(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Return nats and weight of all targets, whatever the bag in training: released models read single tokens."""
        x = self.model.embed(batch.tokens[:, :-1, None])
        hidden = cast(RouteModule, self.route).evaluate(x, batch.document_ids[:, :-1])
        if hidden is None:
            return None
        targets, weight = batch.tokens[:, 1:, None], batch.weight[:, 1:, None]
        losses = cross_entropy(self.model, hidden, targets, weight, LossCoefficients(cross_entropy=1.0))
        return losses.loss.cpu().double().sum(), weight.sum()  # MPS has no fp64
