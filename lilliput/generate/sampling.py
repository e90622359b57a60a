"""From logits to the next token: repetition penalty, temperature, top-k, top-p, in Hugging Face's order and meaning."""

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from lilliput.base.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Sampling settings of the next token."""

    greedy: bool = False
    """Take the likeliest token (after the penalty); the other settings but the penalty then have no say."""
    temperature: float = 1.0
    """Logits are divided by it; 0 is greedy."""
    top_k: int = 0
    """Choose among this many likeliest tokens; 0 for all."""
    top_p: float = 1.0
    """Choose among the likeliest tokens that together reach this probability."""
    repetition_penalty: float = 1.0
    """Logits of tokens already in the text are divided by this where positive, multiplied where negative
    (CTRL, arXiv 1909.05858)."""

    def __post_init__(self) -> None:
        for name, good in (
            ("temperature", 0 <= self.temperature < inf),
            ("top_k", self.top_k >= 0),
            ("top_p", 0 < self.top_p <= 1),
            ("repetition_penalty", 0 < self.repetition_penalty < inf),
        ):
            if not good:
                raise RecipeError(
                    f"{name} cannot be {getattr(self, name)}",
                    where="Sampling",
                    hint="temperature and top_k >= 0, repetition_penalty > 0, 0 < top_p <= 1",
                )


def sample(logits: Tensor, token_ids: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """Choose the next token of each row.

    Args:
        logits: [B, V], any floating dtype; computed in fp32.
        token_ids: all tokens so far, prompt included, [B, T].
        sampling: how.
        generator: randomness, on the CPU; unused where greedy.

    Returns:
        token ids [B].
    """
    scores = apply_repetition_penalty(logits.float(), token_ids, sampling.repetition_penalty)
    if sampling.greedy or sampling.temperature == 0:
        return scores.argmax(dim=-1)
    scores = filter_top_k_top_p(scores / sampling.temperature, sampling)
    return torch.multinomial(scores.softmax(dim=-1).cpu(), 1, generator=generator)[:, 0].to(logits.device)


def apply_repetition_penalty(scores: Tensor, token_ids: Tensor, penalty: float) -> Tensor:
    """Return scores [B, V] with those of tokens in `token_ids` [B, T] made less likely."""
    if penalty == 1.0:
        return scores
    seen = scores.gather(-1, token_ids)
    return scores.scatter(-1, token_ids, torch.where(seen < 0, seen * penalty, seen / penalty))


def filter_top_k_top_p(scores: Tensor, sampling: Sampling) -> Tensor:
    """Scores with what top-k and top-p leave out at minus infinity."""
    if sampling.top_k:
        least = scores.topk(min(sampling.top_k, scores.shape[-1])).values[..., -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    if sampling.top_p < 1.0:
        ordered, indices = scores.sort(dim=-1, descending=True)
        before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)
        beyond = torch.zeros_like(before, dtype=torch.bool).scatter(-1, indices, before >= sampling.top_p)
        scores = scores.masked_fill(beyond, -torch.inf)
    return scores
