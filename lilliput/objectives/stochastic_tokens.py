"""Superposition of several tokenizations of the same text: a position reads a slot, and predicts the next one, in all.

The card of OdinNext describes this, and calls it a gain in throughput. It is augmentation: a step reads the same text
as without it, and leaves positions empty where slots are longer than tokens. What multiplies text is
`NextToken(bag=...)`.

    e_j = 1/M sum_r mean of E[u] over the tokens u of tokenization r in slot j
    loss = cross-entropy against all tokens of slot j + 1, each with its share
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from torch import Tensor, nn

from lilliput.base.spec import check_range
from lilliput.data.batch import Batch
from lilliput.model import LanguageModel
from lilliput.objectives.next_token import NextToken, NextTokenModule
from lilliput.objectives.noise import Noise
from lilliput.objectives.objective import CROSS_ENTROPY, Losses, Parts
from lilliput.objectives.routes.route import FullDepth, RouteInput
from lilliput.objectives.slots import slots_of
from lilliput.objectives.stream_losses import stream_losses
from lilliput.objectives.terms import CrossEntropy, Term


@dataclass(frozen=True, kw_only=True)
class StochasticTokens:
    """Read and predict the first `segmentations` tokenizations that a mixture brings; with one, this is `NextToken`.

    Fewer from stage to stage, 4, 2, and 1 at last, is what the card of OdinNext does.
    """

    segmentations: int = 4
    terms: tuple[Term, ...] = (CrossEntropy(),)

    def __post_init__(self) -> None:
        check_range("StochasticTokens", 1, inf, segmentations=self.segmentations)

    @property
    def plain(self) -> NextToken:
        """Training on the tokenization of the token files alone."""
        return NextToken(terms=self.terms)

    def row_length(self, length: int) -> int:
        return length + 1

    @property
    def tokens_per_position(self) -> int:
        return 1

    @property
    def headline(self) -> str:
        return CROSS_ENTROPY

    def denominator(self, batch: Batch) -> float:
        """Return the summed weight of the slots that are targets."""
        if self.segmentations == 1:
            return self.plain.denominator(batch)
        return float(slots_of(batch, self.segmentations).weight[:, 1:].sum())

    def build(self, model: LanguageModel, parts: Parts) -> nn.Module:
        if self.segmentations == 1:
            return self.plain.build(model, parts)
        return StochasticTokensModule(self, NextTokenModule(self.plain, model, parts(FullDepth())))


class StochasticTokensModule(nn.Module):
    """The module of ordinary training, with other inputs and targets."""

    variants = 1

    def __init__(self, spec: StochasticTokens, plain: NextTokenModule):
        super().__init__()
        self.spec, self.plain = spec, plain

    def active(self, variant: int) -> Iterable[nn.Parameter]:
        return self.plain.active(variant)

    def forward(
        self, batch: Batch, denominator: float | Tensor, variant: int, progress: Tensor, noise: Noise
    ) -> Losses:
        slots = slots_of(batch, self.spec.segmentations)
        targets, weight = slots.tokens[:, 1:], slots.shares[:, 1:] * slots.weight[:, 1:, None]
        rows = RouteInput(
            self.plain.model.embed(slots.tokens[:, :-1], slots.shares[:, :-1]),
            targets,
            slots.document_ids[:, :-1],
            slots.document_ids[:, 1:],
            batch.row,
        )
        streams = self.plain.route(rows, variant, progress, noise)
        del rows
        return stream_losses(self.plain.model, self.spec.terms, streams, targets, weight, 1 / denominator)

    def evaluate(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        return self.plain.evaluate(batch)
