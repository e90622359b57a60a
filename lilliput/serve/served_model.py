"""The model that a server has: its name, its engine, and prompts and settings as the engine takes them."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import Any

import torch

from lilliput.base.errors import LilliputError
from lilliput.generate.engine import Engine
from lilliput.generate.sampling import Sampling
from lilliput.generate.shared_prefixes import common_length
from lilliput.generate.states import RowStates
from lilliput.publish.loaded_model import LoadedModel
from lilliput.serve.api_error import ApiError, refused
from lilliput.tokenizer.encoder import Encoder
from lilliput.tokenizer.native import native
from lilliput.tokenizer.template import check_text, encode_template

LEAST_SHARED = 16
"""Tokens of a beginning that is worth states of its own, at least."""
COLDEST = 1e-3
"""Least temperature; below, the likeliest token is as good as certain, and numbers overflow."""
OPENINGS = 32
"""System messages whose tokens are remembered."""
ANYTHING = "\U000f0000"
"""Placeholder for a user's first message: a character that none begins with."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Tokens to continue."""

    tokens: Sequence[int]
    shared: int = 0
    """Tokens that other conversations begin with too."""


class ServedModel:
    """A model under a name.

    Args:
        published: everything that it needs to write; its weights are where they are to stay.
        name: as clients have it.
        state_dtype: as of `Engine`.
    """

    def __init__(self, published: LoadedModel, name: str, *, state_dtype: torch.dtype | None = None):
        self.published, self.name, self._state_dtype = published, name, state_dtype
        self._encoder = Encoder(published.tokenizer, where=name)
        self._openings: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self._lock = Lock()

    @property
    def has_chat(self) -> bool:
        """Return whether it has a chat template."""
        return self.published.chat_template is not None

    @property
    def context(self) -> int:
        """Tokens that a prompt and its continuation have together, at most."""
        return self.published.context

    @property
    def parameters(self) -> int:
        """Numbers of its weights."""
        return self.published.model.spec.skeleton().parameter_counts()["total"]

    @cached_property
    def state_bytes(self) -> int:
        """Bytes of the states of one conversation that fills the context."""
        return RowStates(self.published.model, 1, self.context, self._state_dtype).bytes

    @property
    def states_grow(self) -> bool:
        """Return whether its states grow with the text."""
        return self.published.model.spec.states_grow

    def engine(self, rows: int, *, cache_bytes: int, compile: bool = False, int8: bool = False) -> Engine:
        """Return an engine for so many texts at the same time."""
        one, about = self.published, {"compile": compile, "int8": int8, "cache_bytes": cache_bytes}
        states = self._state_dtype
        return Engine(one.model, rows, tokenizer=one.tokenizer, context=one.context, state_dtype=states, **about)

    def text_prompt(self, text: str, param: str) -> Prompt:
        """Return the prompt of a text to continue; the beginning of a document for an empty one.

        Raises:
            ApiError: it cannot be encoded, or is too long.
        """
        try:
            check_text(text, param)
            with native(param):
                ids = self._encoder.encode(text, add_special_tokens=True).tolist()
        except LilliputError as error:
            raise refused(error, param=param) from error
        return self._checked(ids or [self.published.end_id], param)

    def token_prompt(self, ids: Sequence[int], param: str) -> Prompt:
        """Return the prompt of token ids.

        Raises:
            ApiError: the vocabulary does not have one, or there are too many.
        """
        vocab = self.published.model.spec.vocab
        if max(ids) >= vocab:
            raise ApiError(
                400,
                f"{param} has the id {max(ids)}; ids of this model are below {vocab}.",
                param=param,
                code="invalid_value",
            )
        return self._checked([int(one) for one in ids], param)

    def chat_prompt(self, messages: Sequence[Mapping[str, str]]) -> Prompt:
        """Return the prompt that makes the model answer a conversation.

        Raises:
            ApiError: it has no chat template, that refuses the messages, or they are too long.
        """
        if not self.has_chat:
            raise ApiError(
                400,
                f"{self.name} is a base model without a chat template, so it has no conversations; send the text to "
                "/v1/completions.",
                param="messages",
                code="model_not_supported",
            )
        prompt, shared = self._checked(self._encoded(messages), "messages"), 0
        if messages[0]["role"] == "system" and len(messages) > 1:
            shared = common_length(self._opening(messages[0]["content"]), tuple(prompt.tokens))
        return replace(prompt, shared=shared if LEAST_SHARED <= shared < len(prompt.tokens) else 0)

    def sampling(self, settings: Mapping[str, Any]) -> Sampling:
        """Return the release's own settings, with others where they are not None."""
        own = self.published.generation.sampling
        given = {name: value for name, value in settings.items() if value is not None}
        if "temperature" in given:  # also of a release that is greedy by itself
            given["greedy"] = given["temperature"] < COLDEST
        return replace(own, **given)

    def most_tokens(self, prompt: Prompt, asked: int | None) -> int:
        """Return how many tokens may be written: what was asked for, as far as the context has room."""
        room = max(1, self.context - len(prompt.tokens))
        return min(self.published.generation.max_new_tokens if asked is None else asked, room)

    def _opening(self, system: str) -> tuple[int, ...]:
        """Return the tokens of a system message, and of what a chat template writes before the first message."""
        with self._lock:
            if system in self._openings:
                self._openings.move_to_end(system)
                return self._openings[system]
        messages = [{"role": "system", "content": system}, {"role": "user", "content": ANYTHING}]
        ids = tuple(self._encoded(messages))
        with self._lock:
            self._openings[system] = ids
            while len(self._openings) > OPENINGS:
                self._openings.popitem(last=False)
        return ids

    def _encoded(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        one = self.published
        assert one.chat_template is not None
        try:
            with native(self.name):
                return encode_template(
                    one.tokenizer,
                    one.chat_template,
                    messages,
                    tokens=one.special_tokens,
                    where=self.name,
                    encoder=self._encoder,
                )
        except LilliputError as error:
            raise refused(error, param="messages") from error

    def _checked(self, ids: Sequence[int], param: str) -> Prompt:
        if len(ids) >= self.context:
            raise ApiError(
                400,
                f"{param} has {len(ids):,} tokens, and the model reads and writes {self.context:,} together; send a "
                "shorter one.",
                param=param,
                code="context_length_exceeded",
            )
        return Prompt(tokens=ids)


def default_rows(device: torch.device, state_bytes: int) -> int:
    """Return how many texts to write at the same time: as many as a step serves well, within an eighth of memory."""
    if device.type == "cuda":
        return max(1, min(256, torch.cuda.mem_get_info(device)[1] // 8 // max(1, state_bytes)))
    return max(1, min(32, (1 << 30) // max(1, state_bytes)))
