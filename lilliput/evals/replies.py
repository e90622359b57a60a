"""Replies of a chat model, written by the engine in batches, and what they look like: ends, loops, repetition."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tokenizers import Tokenizer

from lilliput.base.errors import ExportError
from lilliput.generate.engine import Engine
from lilliput.generate.request import End, Request
from lilliput.generate.sampling import Sampling
from lilliput.model import LanguageModel
from lilliput.tokenizer.chatml import MESSAGE_END
from lilliput.tokenizer.template import encode_template

ROWS = 16
"""Replies that are written at the same time."""
_PERIOD, _TIMES = 16, 4
"""A text is in a loop where at most so many tokens come so many times at its end."""


class GenerationSettings(Protocol):
    """Settings that a model was released with."""

    @property
    def sampling(self) -> Sampling: ...


class ChatModel(Protocol):
    """Everything that a model needs to reply; `lilliput.publish.loaded_model.LoadedModel` is one."""

    @property
    def model(self) -> LanguageModel: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def context(self) -> int: ...
    @property
    def chat_template(self) -> str | None: ...
    @property
    def stop_ids(self) -> tuple[int, ...]: ...
    @property
    def special_tokens(self) -> Mapping[str, str]: ...
    @property
    def generation(self) -> GenerationSettings: ...


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A text that a model wrote."""

    text: str
    tokens: tuple[int, ...]
    ended: End
    is_closed: bool
    """True if the model ended it with `<|im_end|>`, and neither with another token nor where it was cut."""

    @property
    def loops(self) -> bool:
        """Return whether its end is the same few tokens again and again."""
        for period in range(1, _PERIOD + 1):
            end = self.tokens[-period * _TIMES :]
            if len(end) == period * _TIMES and end == end[:period] * _TIMES:
                return True
        return False

    @property
    def repeated(self) -> float:
        """Share of its runs of four tokens that it has had before; 0 of a shorter text."""
        runs = Counter(zip(*(self.tokens[start:] for start in range(4)), strict=False))
        return 1 - len(runs) / sum(runs.values()) if runs else 0.0


def message_end(chat: ChatModel) -> int:
    """Return the id that closes a reply.

    Raises:
        ExportError: the tokenizer has no `<|im_end|>`, or there is no chat template.
    """
    end = chat.tokenizer.token_to_id(MESSAGE_END)
    if end is None or not chat.chat_template:
        raise ExportError(
            f"the tokenizer has no {MESSAGE_END} or no chat template",
            where="the model whose replies are judged",
            hint="evaluate replies of an instruct release; a base model gives none",
        )
    return end


def prompt_ids(chat: ChatModel, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Return the ids of a conversation up to where the reply begins."""
    assert chat.chat_template, "see message_end"
    return encode_template(
        chat.tokenizer, chat.chat_template, messages, tokens=chat.special_tokens, where="the model's chat template"
    )


def write_replies(
    chat: ChatModel, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, rows: int = ROWS
) -> list[Reply]:
    """Return the greedy reply to each prompt, with the repetition penalty of the release.

    Args:
        chat: the model.
        prompts: ids up to where a reply begins, each with room for it in the context.
        max_new_tokens: of a reply, the closing token among them.
        rows: replies that are written at the same time.
    """
    end = message_end(chat)
    sampling = Sampling(greedy=True, repetition_penalty=chat.generation.sampling.repetition_penalty)
    stops = {end, *chat.stop_ids}
    requests = [
        Request(prompt=prompt, max_new_tokens=max_new_tokens, sampling=sampling, stop_token_ids=stops)
        for prompt in prompts
    ]
    engine = Engine(chat.model, rows=max(1, min(rows, len(prompts))), tokenizer=chat.tokenizer, context=chat.context)
    texts, written = ["" for _ in prompts], [list[int]() for _ in prompts]
    ended: list[End] = ["length" for _ in prompts]
    for index, token in engine.tokens(requests):
        texts[index] += token.text
        written[index].append(token.token)
        ended[index] = token.ended or ended[index]
    return [
        Reply(text=text, tokens=tuple(tokens), ended=why, is_closed=why == "stop" and tokens[-1] == end)
        for text, tokens, why in zip(texts, written, ended, strict=True)
    ]
