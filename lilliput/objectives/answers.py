"""Log-probabilities of the answers of packed pairs: sums over the targets of each document of a row.

Shapes: B rows, L positions, P pairs of a row.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lilliput.data.batch import Batch
from lilliput.model import LanguageModel
from lilliput.ops.fused_linear_cross_entropy import fused_linear_cross_entropy


class Answers(NamedTuple):
    """The answers of a batch, the chosen one of each pair and then the rejected one."""

    documents: Tensor
    """Document of the target of each position [B, L]; 2 P where it is of no pair's."""
    log_probabilities: Tensor
    """Summed over the tokens of the answer and its closing one [B, P, 2], constant."""
    lengths: Tensor
    """Number of those [B, P, 2]."""
    closing: Tensor
    """Log-probability of the last one alone [B, P, 2], constant."""
    is_pair: Tensor
    """[B, P]; False for places that a row leaves empty."""

    def at_targets(self, values: Tensor) -> Tensor:
        """Return for each target [B, L] the value of its answer, of [B, P, 2]; 0 for one of no answer."""
        flat = torch.nn.functional.pad(values.flatten(1), (0, 1))
        return flat.gather(1, self.documents)


def hidden_states(model: LanguageModel, batch: Batch) -> Tensor:
    """Return what the head reads of a batch's rows [B, L, D]."""
    x = model.embed(batch.tokens[:, :-1, None])
    return model.norm(model.forward_layers(x, document_ids=batch.document_ids[:, :-1]))


@torch.no_grad()
def answers_of(model: LanguageModel, hidden: Tensor, batch: Batch, pairs: int) -> Answers:
    """Return the answers of a batch.

    Args:
        model: whose head reads the hidden states.
        hidden: of the batch [B, L, D].
        batch: of packed pairs.
        pairs: P, places for pairs of a row.
    """
    weight = batch.weight[:, 1:]
    losses = fused_linear_cross_entropy(
        hidden.detach(),
        model.head_weight,
        batch.tokens[:, 1:, None],
        weight[..., None],
        softcap=model.spec.logit_softcap,
    ).loss[..., 0]
    documents = batch.document_ids[:, 1:].long().clamp(max=2 * pairs)
    # Sums by a mask, not by scattered additions, whose order on a GPU is not the same each time.
    of_answer = (documents[..., None] == torch.arange(2 * pairs, device=documents.device)) & (weight[..., None] > 0)
    lengths = of_answer.sum(dim=1).unflatten(1, (pairs, 2))
    sums = -(losses[..., None] * of_answer).sum(dim=1).unflatten(1, (pairs, 2))
    place = torch.arange(1, weight.shape[1] + 1, device=documents.device)
    last = (place[:, None] * of_answer).amax(dim=1).sub(1).clamp(min=0)
    closing = -losses.gather(1, last).unflatten(1, (pairs, 2))
    return Answers(documents, sums, lengths, closing * (lengths > 0), (lengths > 0).all(dim=-1))


def count_pairs(batch: Batch) -> int:
    """Return the number of pairs of a batch on the CPU."""
    with_targets = torch.where(batch.weight[:, 1:] > 0, batch.document_ids[:, 1:], -1)
    return int(((with_targets.amax(dim=1) + 1) // 2).sum())
