"""Log-likelihoods of given continuations: right-padded batches, one pass each."""

from collections.abc import Sequence

import torch

from lilliput.model import LanguageModel

POSITIONS = 8_192
"""Most positions of a batch, padding included; logits of a 32 k vocabulary then take 1 GiB."""

Request = tuple[list[int], list[int]]
"""Token ids of a context (at least one) and of its continuation (at least one)."""


def log_likelihoods(model: LanguageModel, requests: Sequence[Request], *, window: int) -> list[float]:
    """The log-likelihood of each continuation after its context, in nats, computed in fp32.

    What does not fit the window of `window` positions is cut from the left, as lm-evaluation-harness does.
    """
    order = sorted(range(len(requests)), key=lambda index: sum(map(len, requests[index])))
    scores = [0.0] * len(requests)
    while order:
        longest = min(window, sum(map(len, requests[order[-1]])))
        rows = max(1, POSITIONS // longest)
        batch, order = order[-rows:], order[:-rows]
        for index, score in zip(batch, _batch(model, [requests[index] for index in batch], window), strict=True):
            scores[index] = score
    return scores


def _batch(model: LanguageModel, requests: Sequence[Request], window: int) -> list[float]:
    # Causal models look at nothing on their right, so padding there changes no score.
    texts = [(context + continuation)[-(window + 1) :] for context, continuation in requests]
    sizes = [min(len(continuation), len(text) - 1) for (_, continuation), text in zip(requests, texts, strict=True)]
    length = max(len(text) for text in texts) - 1
    device = next(model.parameters()).device
    inputs = torch.zeros(len(texts), length, dtype=torch.long, device=device)
    for row, text in zip(inputs, texts, strict=True):
        row[: len(text) - 1] = torch.tensor(text[:-1], device=device)
    with torch.inference_mode():
        logits = model(inputs)
        scores = []
        for row, text, size in zip(logits, texts, sizes, strict=True):
            targets = torch.tensor(text[-size:], device=device)
            likelihoods = row[len(text) - 1 - size : len(text) - 1].float().log_softmax(dim=-1)
            scores.append(float(likelihoods.gather(-1, targets[:, None]).double().sum()))
    return scores
