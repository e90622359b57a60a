"""Sampling settings, and what they do to scores, with Hugging Face's order and meaning.

Penalties, temperature, top-k, top-p, min-p, and a draw. Each setting is a tensor with one number per row, so that rows
with other settings share a batch; a row to which one does not apply has its neutral value.

Shapes: B rows, V tokens of the vocabulary.
"""

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from lilliput.base.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Sampling settings of the next token."""

    greedy: bool = False
    """Take the likeliest token (after the penalties); the other settings then have no say."""
    temperature: float = 1.0
    """Logits are divided by it; 0 is greedy."""
    top_k: int = 0
    """Choose among this many likeliest tokens; 0 for all."""
    top_p: float = 1.0
    """Choose among the likeliest tokens that together reach this probability."""
    min_p: float = 0.0
    """Choose among the tokens that are at least this many times as likely as the likeliest (arXiv 2407.01082)."""
    repetition_penalty: float = 1.0
    """Logits of tokens already in the text are divided by this where positive, multiplied where negative
    (CTRL, arXiv 1909.05858)."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit for each time that it was written; the prompt does not count."""
    presence_penalty: float = 0.0
    """Subtracted once from the logit of each token that was written; the prompt does not count."""

    def __post_init__(self) -> None:
        for name, good in (
            ("temperature", 0 <= self.temperature < inf),
            ("top_k", self.top_k >= 0),
            ("top_p", 0 < self.top_p <= 1),
            ("min_p", 0 <= self.min_p <= 1),
            ("repetition_penalty", 0 < self.repetition_penalty < inf),
            ("frequency_penalty", -inf < self.frequency_penalty < inf),
            ("presence_penalty", -inf < self.presence_penalty < inf),
        ):
            if not good:
                raise RecipeError(
                    f"{name} cannot be {getattr(self, name)}",
                    where="Sampling",
                    hint="temperature and top_k >= 0, repetition_penalty > 0, 0 < top_p <= 1, 0 <= min_p <= 1",
                )

    @property
    def is_greedy(self) -> bool:
        return self.greedy or self.temperature == 0

    @property
    def needs_history(self) -> bool:
        """Return whether scores depend on the tokens before."""
        return self.repetition_penalty != 1 or self.frequency_penalty != 0 or self.presence_penalty != 0


def apply_repetition_penalty(scores: Tensor, seen: Tensor, penalty: Tensor) -> Tensor:
    """Return scores [B, V] with those of tokens that are in the text, seen [B, V], made less likely; penalty [B]."""
    penalty = penalty[:, None]
    return torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def apply_frequency_penalty(scores: Tensor, counts: Tensor, penalty: Tensor) -> Tensor:
    """Return scores [B, V] less the penalty [B] times how often each token was written, counts [B, V]."""
    return scores - penalty[:, None] * counts


def apply_presence_penalty(scores: Tensor, counts: Tensor, penalty: Tensor) -> Tensor:
    """Return scores [B, V] less the penalty [B] for each token that was written, counts [B, V]."""
    return scores - penalty[:, None] * (counts > 0)


def top_k_top_p_threshold(scores: Tensor, top_k: Tensor, top_p: Tensor, widest: int) -> Tensor:
    """The least score [B] that top-k, and then top-p among what that leaves, let through.

    Args:
        scores: [B, V], divided by the temperature.
        top_k: [B], from 1 to V; V lets all through.
        top_p: [B]; 1 lets all through.
        widest: the largest top_k of a row that has no other limit to how many tokens are looked at, at most V; the
            candidates are this many.
    """
    ordered = scores.topk(widest).values
    beyond = torch.arange(widest, device=scores.device) >= top_k[:, None]
    shares = ordered.masked_fill(beyond, -torch.inf).softmax(dim=-1)
    # The likeliest token stays, whatever the rounding of the sums.
    beyond |= (shares.cumsum(dim=-1) - shares >= top_p[:, None]) & (top_p < 1)[:, None]
    last = (~beyond).sum(dim=-1, keepdim=True).clamp(min=1) - 1
    return ordered.gather(-1, last)[:, 0]


def min_p_threshold(scores: Tensor, min_p: Tensor) -> Tensor:
    """Return the least score [B] that min-p lets through."""
    return scores.amax(dim=-1) + min_p.log()


def draw(scores: Tensor, uniform: Tensor) -> Tensor:
    """Draw a token of each row by the inverse of its distribution function.

    Args:
        scores: [B, V], minus infinity where a token is left out.
        uniform: [B], from 0 to 1.
    """
    reached = scores.softmax(dim=-1).cumsum(dim=-1)
    # Below the last sum by one rounding at least, so that a token that was left out is never drawn.
    target = uniform.clamp(max=1 - 2**-23) * reached[:, -1]
    found = torch.searchsorted(reached, target[:, None], right=True)[:, 0]
    return found.clamp(max=scores.shape[1] - 1)  # scores that are no numbers choose the last token, and not one beyond
