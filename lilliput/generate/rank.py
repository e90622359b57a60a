"""Documents in the order of how well a model knows texts like them: perplexity by token, bits by byte."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lilliput.generate.log_likelihood import Request, log_likelihoods
from lilliput.model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class RankedDocument:
    """A document and how likely a model finds it, after the token that ends the one before."""

    index: int
    """Among the documents that were given, from 0."""
    log_likelihood: float
    """In nats, of the whole document."""
    tokens: int
    bytes: int

    @property
    def perplexity(self) -> float:
        """Per token, which only models with one tokenizer have in common."""
        return math.exp(min(-self.log_likelihood / self.tokens, 700.0))

    @property
    def bits_per_byte(self) -> float:
        """Per UTF-8 byte, which any two models have in common."""
        return -self.log_likelihood / math.log(2) / self.bytes


def rank_documents(
    model: LanguageModel, documents: Sequence[tuple[list[int], int]], *, window: int, end_id: int
) -> list[RankedDocument]:
    """The documents, the likeliest by byte first.

    Args:
        model: on any device.
        documents: token ids, one at least, and UTF-8 bytes of each.
        window: tokens that the model reads at once; a longer document is cut into windows that share no token, each led
            by the one before it.
        end_id: the token that ends documents, which leads the first window.
    """
    requests: list[Request] = []
    owners: list[int] = []
    for index, (ids, _) in enumerate(documents):
        before = [end_id, *ids]
        for start in range(0, len(ids), window):
            requests.append(([before[start]], ids[start : start + window]))
            owners.append(index)
    totals = [0.0] * len(documents)
    for owner, likelihood in zip(owners, log_likelihoods(model, requests, window=window), strict=True):
        totals[owner] += likelihood
    ranked = (
        RankedDocument(index=index, log_likelihood=total, tokens=len(ids), bytes=size)
        for index, (total, (ids, size)) in enumerate(zip(totals, documents, strict=True))
    )
    return sorted(ranked, key=lambda one: one.bits_per_byte)
