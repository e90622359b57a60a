"""Decoding: one pass over the prompt, then one position at a time from the mixers' states."""

from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from lilliput.generate.sampling import Sampling, sample
from lilliput.model import LanguageModel


def stream(
    model: LanguageModel,
    prompt: list[int],
    sampling: Sampling,
    *,
    stop_token_ids: Collection[int],
    max_new_tokens: int,
    seed: int = 0,
) -> Iterator[int]:
    """Yield new tokens until one of `stops` (which is yielded too) or `most` of them.

    Args:
        model: in evaluation; its own dtype and device are used.
        prompt: token ids, at least one.
        sampling: how tokens are chosen.
        stop_token_ids: ids that end the text.
        max_new_tokens: new tokens at most.
        seed: the same seed gives the same text.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    text = torch.tensor([prompt], device=device)
    fresh, states = text, None
    for _ in range(max_new_tokens):
        with torch.inference_mode():
            logits, states = _advance(model, fresh, states)
            chosen = sample(logits, text, sampling, generator)
        fresh = chosen[:, None]
        text = torch.cat((text, fresh), dim=1)
        token = int(chosen)
        yield token
        if token in stop_token_ids:
            return


def _advance(model: LanguageModel, tokens: Tensor, states: list | None) -> tuple[Tensor, list]:
    """Tokens [B, L] and the states before them -> logits of the last position [B, V] and the states after."""
    x, states = model.decode(model.embed(tokens[..., None]), states=states)
    return model.logits(x[:, -1:])[:, 0], states
