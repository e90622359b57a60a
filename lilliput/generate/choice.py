"""A continuation that a model scored beside others."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to go on from a context, and how likely the model finds it."""

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
