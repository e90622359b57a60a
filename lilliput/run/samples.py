"""The writer of samples in training: the engine, with prompts from what the phase holds out."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from lilliput.data.heldout_prompts import heldout_prompts
from lilliput.generate.sampling import Sampling
from lilliput.generate.stream_text import write_texts
from lilliput.model import LanguageModel
from lilliput.tokenizer.chatml import MESSAGE_END
from lilliput.train.phase import Phase
from lilliput.train.samples import Sample, WriteSamples

NEW_TOKENS = 24
"""Tokens of a sample at most: a line."""
SAMPLING = Sampling(temperature=0.7, top_p=0.95)
"""Greedy text of a small model soon repeats itself, however good the model is. The seed is always the same, so that
samples of equal weights are equal."""


def sample_writer(phase: Phase, tokens: Mapping[str, Any], *, writes: bool) -> WriteSamples | None:
    """Return what lets a model continue held-out prompts; None where the phase has no samples, or this rank no record.

    Args:
        phase: about to be trained.
        tokens: opened token files of its corpora, by name.
        writes: whether this rank writes the run.
    """
    if not phase.samples or not writes:
        return None
    prompts = cache(lambda: heldout_prompts(tokens, phase.samples))  # read at the first measurement

    def write(model: LanguageModel) -> list[Sample]:
        if not prompts():
            return []
        files = tokens[prompts()[0].corpus]
        ends = {files.index["end"], files.tokenizer.token_to_id(MESSAGE_END)} - {None}
        with torch.compiler.set_stance("force_eager"):  # as for held-out numbers: other shapes
            texts = write_texts(
                model,
                files.tokenizer,
                [prompt.ids for prompt in prompts()],
                SAMPLING,
                stop_token_ids=ends,
                max_new_tokens=NEW_TOKENS,
                context=phase.length,
            )
        return [
            Sample(corpus=prompt.corpus, prompt=prompt.text, text=text)
            for prompt, text in zip(prompts(), texts, strict=True)
        ]

    return write
