"""Requests to an engine, and its answers, token by token."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from lilliput.base.errors import RecipeError
from lilliput.generate.sampling import Sampling

End = Literal["stop", "length", "context"]
"""Reason for a text to end: a stop token or a stop string, the most tokens asked for, or a context that is full."""


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """The beginning of a text with the states after it, which is not read again."""

    tokens: Sequence[int]
    states: Mapping[str, Tensor]
    """States of one row, see `RowStates.row`."""
    logits: Tensor | None = None
    """After the last token [V], so that a text can continue with nothing else read; None where they are not known."""

    def begins(self, prompt: Sequence[int]) -> bool:
        """Return whether a prompt begins with it and can be continued from it."""
        more = len(prompt) - len(self.tokens)
        enough = more > 0 or (more == 0 and self.logits is not None)
        return enough and list(prompt[: len(self.tokens)]) == list(self.tokens)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A text to continue."""

    prompt: Sequence[int]
    """Token ids, at least one."""
    max_new_tokens: int
    sampling: Sampling = Sampling()
    stop_token_ids: Collection[int] = ()
    """Ids that end the text."""
    stop_strings: Sequence[str] = ()
    """Strings that end the text, before them; they need an engine with a tokenizer."""
    seed: int = 0
    """The same seed gives the same text, whatever else is in the batch."""
    log_probabilities: bool = False
    """True for the log-probability of each token in the model's own distribution, before penalties and filters."""
    top_log_probabilities: int = 0
    """Likeliest tokens of that distribution to return with each token, with their log-probabilities."""
    prefix: Prefix | None = None
    """The beginning of the prompt, if its states are there already."""
    shared_tokens: int = 0
    """Tokens of the prompt that other prompts begin with too, such as a system message; an engine with a cache keeps
    the states after them."""

    def __post_init__(self) -> None:
        strings = self.stop_strings
        if not isinstance(strings, Sequence) or not all(isinstance(one, str) and one for one in strings):
            raise RecipeError(
                f"{strings!r:.80} cannot end a text", where="the stop strings", hint="give texts, none empty"
            )


class Token(NamedTuple):
    """A token that was written."""

    number: int
    """Number of the request."""
    token: int
    text: str = ""
    """The text that can be shown since the token before it, of an engine with a tokenizer; without what ends it."""
    ended: End | None = None
    """None while the text continues."""
    log_probability: float | None = None
    top: Sequence[tuple[int, float]] = ()
    """The likeliest tokens of the model's own distribution with their log-probabilities, where they were asked for."""
    cached_tokens: int = 0
    """Tokens of the prompt that were not read, because the states after them were kept."""
