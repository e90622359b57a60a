"""Continuations of a context that a model scored beside each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A continuation of a context, and how likely the model finds it."""

    text: str
    log_likelihood: float
    """Nats, summed over its tokens."""
    tokens: int
    share: float
    """Share of the choices' total probability."""

    @property
    def per_token(self) -> float:
        """Mean log-likelihood of a token, in nats."""
        return self.log_likelihood / self.tokens

    @property
    def per_character(self) -> float:
        """Log-likelihood over the characters of the text: what `acc_norm` compares."""
        return self.log_likelihood / max(1, len(self.text))


def weighed(texts: Sequence[str], log_likelihoods: Sequence[float], tokens: Sequence[int]) -> list[Choice]:
    """Return choices with their shares of the probability of all.

    Args:
        texts: of the choices.
        log_likelihoods: of each, in nats.
        tokens: of each.
    """
    shares = torch.tensor(log_likelihoods, dtype=torch.float64).softmax(dim=0).tolist()
    return [
        Choice(text=text, log_likelihood=likelihood, tokens=count, share=share)
        for text, likelihood, count, share in zip(texts, log_likelihoods, tokens, shares, strict=True)
    ]
