"""The samples of a phase as its page shows them: each prompt once, with what the model wrote after it at some steps."""

from collections.abc import Sequence
from dataclasses import dataclass

from lilliput.train.metrics_file import Line
from lilliput.train.samples import SAMPLES

MOST = 6
"""Texts of a prompt that are shown, evenly spread over the phase, with the first one and the last one."""


@dataclass(frozen=True, kw_only=True)
class ShownPrompt:
    """A prompt, and its texts."""

    corpus: str
    text: str
    """In one line."""
    texts: list[tuple[str, str]]
    """Step and continuation, in order."""


def prompts(measured: Sequence[Line]) -> list[ShownPrompt]:
    """Return the prompts of a phase with their texts, in the order of its measurements.

    Args:
        measured: lines of measurements, those without samples too.
    """
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for line in measured:
        for one in line.get(SAMPLES, ()):
            texts = found.setdefault((one["corpus"], one["prompt"]), [])
            texts.append((f"{line['step']:,}", one["text"].strip()))
    return [
        ShownPrompt(corpus=corpus, text=" ".join(prompt.split()), texts=_some(texts))
        for (corpus, prompt), texts in found.items()
    ]


def _some(texts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    if len(texts) <= MOST:
        return texts
    return [texts[round(place * (len(texts) - 1) / (MOST - 1))] for place in range(MOST)]
