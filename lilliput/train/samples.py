"""Samples: texts that a model writes at a measurement, which show people what held-out numbers mean."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lilliput.model import LanguageModel

SAMPLES = "samples"
"""The key of the samples of a line of `metrics.jsonl`, beside `heldout`."""
PROMPT_WIDTH = 32
"""Characters of a prompt that a line has."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A prompt, and how the model continues it."""

    corpus: str
    """Name of the corpus that the prompt is held out from."""
    prompt: str
    text: str
    """The continuation alone; empty where the model ends the text at once."""

    def plain(self) -> dict[str, Any]:
        """Return it as a line of metrics has it."""
        return {"corpus": self.corpus, "prompt": self.prompt, "text": self.text}


def in_line(sample: Sample, width: int) -> str:
    """Return the end of a sample's prompt and the beginning of its text in one line of `width` characters at most."""
    prompt, text = (" ".join(part.split()) for part in (sample.prompt, sample.text))
    shown = prompt if len(prompt) <= PROMPT_WIDTH else f"...{prompt[3 - PROMPT_WIDTH :]}"
    return f"{shown} | {text}"[: max(0, width)]


WriteSamples = Callable[[LanguageModel], list[Sample]]
"""Returns what a model writes; it, and all that training depends on, stay as they are."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The samples of a measurement, or the reason for which there are none."""

    written: tuple[Sample, ...] = ()
    failure: str | None = None
    """The error that ended the writing."""


def try_samples(write: WriteSamples, model: LanguageModel) -> Samples:
    """Return what a model writes, or the error instead: no sample is worth the training that it would end."""
    try:
        return Samples(written=tuple(write(model)))
    except Exception as error:  # whatever fails here, training depends on none of it
        return Samples(failure=f"{type(error).__name__}: {' '.join(str(error).split())}")
