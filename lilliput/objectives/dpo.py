"""Direct preference optimization (arXiv 2305.18290): learn from pairs of a chosen and a rejected answer.

    loss = -log sigmoid(beta * ((log p(chosen) - log p(rejected)) - (log r(chosen) - log r(rejected))))

p is the model and r the reference it began as, whose log-probabilities were computed once before the phase. They are
sums over the tokens of an answer with the closing one. The gradient is that of a weighted cross-entropy: each token of
a chosen answer counts as much as the pair pushes, and each of a rejected one as much below zero, so that the fused loss
does it without logits of a whole batch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor, nn

from lilliput.base.errors import RecipeError
from lilliput.base.spec import check_range
from lilliput.data.batch import Batch
from lilliput.data.pair_rows import REFERENCE
from lilliput.model import LanguageModel
from lilliput.objectives.answers import Answers, answers_of, count_pairs, hidden_states
from lilliput.objectives.noise import Noise
from lilliput.objectives.objective import Alarm, Losses, Parts
from lilliput.ops.fused_linear_cross_entropy import fused_linear_cross_entropy

LOSS = "dpo"
CHOSEN_CHANGE = "logps/chosen_change"


@dataclass(frozen=True, kw_only=True)
class DPO:
    """Prefer the chosen answer of each pair. Rows come from `PairData`."""

    beta: float = 0.5
    """Strength of the hold on the reference: the higher, the sooner a pair stops to push. SmolLM2-135M learned with
    0.5, larger models with 0.1."""
    sft_weight: float = 0.0
    """Weight of the chosen answers' cross-entropy, a mean over the tokens of each (arXiv 2404.19733): holds up their
    probability, which DPO alone often lowers."""

    def __post_init__(self) -> None:
        check_range("DPO", 0, inf, sft_weight=self.sft_weight)
        if not 0 < self.beta < inf:
            raise RecipeError(f"beta cannot be {self.beta}", where="DPO", hint="give a number above 0, such as 0.5")

    def row_length(self, length: int) -> int:
        return length + 1

    @property
    def tokens_per_position(self) -> int:
        return 1

    @property
    def headline(self) -> str:
        return LOSS

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """The chosen answers become less probable, or longer ones are preferred."""
        return (
            Alarm(
                number=CHOSEN_CHANGE,
                below=-1.0,
                says="chosen answers have lost {amount:.1f} nats each since the reference: raise beta or sft_weight, "
                "or lower the rate",
            ),
            Alarm(
                number="length_drift",
                above=10.0,
                says="the answers that the model prefers are {amount:.0f} tokens longer than the chosen ones",
            ),
        )

    def denominator(self, batch: Batch) -> float:
        """Return the number of pairs."""
        return float(count_pairs(batch))

    def build(self, model: LanguageModel, parts: Parts) -> nn.Module:
        return DPOModule(self, model)


class DPOModule(nn.Module):
    """Losses of a batch; the language model inside stays callable as `.model`."""

    variants = 1

    def __init__(self, spec: DPO, model: LanguageModel):
        super().__init__()
        self.spec, self.model = spec, model

    def active(self, variant: int) -> Iterable[nn.Parameter]:
        return self.model.parameters()

    def forward(
        self, batch: Batch, denominator: float | Tensor, variant: int, progress: Tensor, noise: Noise
    ) -> Losses:
        reference = _reference(batch)
        hidden = hidden_states(self.model, batch)
        answers = answers_of(self.model, hidden, batch, reference.shape[1])
        margin, is_pair = self._margin(answers, reference), answers.is_pair
        push = self.spec.beta * torch.sigmoid(-margin) * is_pair
        nll = -answers.log_probabilities[..., 0] / answers.lengths[..., 0].clamp(min=1)
        of_chosen = self.spec.sft_weight / answers.lengths[..., 0].clamp(min=1) * is_pair
        charge = torch.stack([push + of_chosen, -push], dim=-1) / denominator
        total = fused_linear_cross_entropy(
            hidden,
            self.model.head_weight,
            batch.tokens[:, 1:, None],
            (batch.weight[:, 1:] * answers.at_targets(charge))[..., None],
            softcap=self.model.spec.logit_softcap,
        ).total
        terms = {
            name: (value * is_pair).sum() / denominator
            for name, value in self._numbers(answers, reference, margin).items()
        }
        terms["chosen_nll"] = (nll * is_pair).sum() / denominator
        value = terms[LOSS] + self.spec.sft_weight * terms["chosen_nll"]
        return Losses(total - total.detach() + value, terms)  # the gradient of the former, the value of the latter

    def _margin(self, answers: Answers, reference: Tensor) -> Tensor:
        gained = answers.log_probabilities - reference
        return self.spec.beta * (gained[..., 0] - gained[..., 1])

    def _numbers(self, answers: Answers, reference: Tensor, margin: Tensor) -> dict[str, Tensor]:
        """Numbers of each pair [B, P], by name; rewards are TRL's, and in units of beta."""
        now, gained = answers.log_probabilities, answers.log_probabilities - reference
        longer = (answers.lengths[..., 1] - answers.lengths[..., 0]).to(margin.dtype)
        return {
            LOSS: -nn.functional.logsigmoid(margin),
            "rewards/accuracies": (margin > 0).to(margin.dtype),
            "rewards/margins": margin,
            "rewards/chosen": self.spec.beta * gained[..., 0],
            "rewards/rejected": self.spec.beta * gained[..., 1],
            "logps/chosen": now[..., 0],
            "logps/rejected": now[..., 1],
            CHOSEN_CHANGE: gained[..., 0],
            "logps/closing": answers.closing[..., 0],
            "length_drift": longer * (margin < 0),
        }

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Return the loss summed over the pairs, and their number."""
        reference = _reference(batch)
        answers = answers_of(self.model, hidden_states(self.model, batch), batch, reference.shape[1])
        losses = -nn.functional.logsigmoid(self._margin(answers, reference)) * answers.is_pair
        return losses.cpu().double().sum(), answers.is_pair.sum()


def _reference(batch: Batch) -> Tensor:
    if REFERENCE not in batch.extras:
        raise RecipeError(
            "the rows do not have the reference's log-probabilities",
            where="DPO",
            hint='read pairs: PairData(corpus="...", reference="..."), after ReferenceLogProbabilities in the timeline',
        )
    return batch.extras[REFERENCE]
