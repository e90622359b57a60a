"""ChatML: `<|im_start|>{role}\\n{content}<|im_end|>\\n`, and which of its tokens an assistant answers for."""

import json
from array import array
from collections.abc import Mapping, Sequence
from typing import Protocol

from tokenizers import Tokenizer

from lilliput.base.errors import DataError
from lilliput.tokenizer.encoder import Encoder
from lilliput.tokenizer.native import native
from lilliput.tokenizer.specials import id_of, literal, vocabulary_size

MESSAGE_START = "<|im_start|>"
MESSAGE_END = "<|im_end|>"
CHATML = (MESSAGE_START, MESSAGE_END)
ASSISTANT = "assistant"

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}"
    "{%- else -%}"
    "{{- message['content'] + '<|im_end|>' -}}"
    "{%- endif -%}"
    "{{- '\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
"""The same in Jinja, for Hugging Face: no bos, no system prompt of its own.

What stands in `generation` is what an assistant answers for, as `encode_messages` has it; but a token that the header's
newline shares with the content's first one, Hugging Face counts too.
"""


class Message(Protocol):
    """One turn: `lilliput.data.conversations.Message`."""

    @property
    def role(self) -> str: ...
    @property
    def content(self) -> str: ...


def has_chatml(tokenizer: Tokenizer) -> bool:
    """Return whether both ChatML tokens are there."""
    return None not in (tokenizer.token_to_id(MESSAGE_START), tokenizer.token_to_id(MESSAGE_END))


def add_tokens(tokenizer: Tokenizer, tokens: Sequence[str]) -> Tokenizer:
    """A copy with special tokens as its last ids; a tokenizer that ends in them already is only copied.

    Raises:
        DataError: one of the tokens is there at another id.
    """
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.add_special_tokens(list(tokens))
    first = vocabulary_size(copy) - len(tokens)
    for expected, token in enumerate(tokens, start=first):
        if copy.token_to_id(token) != expected:
            raise DataError(
                f"{token} has the id {copy.token_to_id(token)}, not {expected}",
                where="the tokenizer that special tokens are added to",
                hint="start from a tokenizer that has none of these tokens",
            )
    return copy


def add_chatml(tokenizer: Tokenizer) -> Tokenizer:
    """`add_tokens` with those of ChatML."""
    return add_tokens(tokenizer, CHATML)


def render(messages: Sequence[Message | Mapping[str, str]], generation_prompt: bool = False) -> str:
    """The text of a conversation, as `apply_chat_template(messages, tokenize=False)` gives it.

    Args:
        messages: objects or dicts with a role and a content.
        generation_prompt: end in the header of the assistant's next message.
    """
    parts = []
    for message in messages:
        is_dict = isinstance(message, Mapping)
        role, content = (message["role"], message["content"]) if is_dict else (message.role, message.content)
        parts.append(f"{MESSAGE_START}{role}\n{content}{MESSAGE_END}\n")
    return "".join(parts) + (f"{MESSAGE_START}{ASSISTANT}\n" if generation_prompt else "")


def encode_messages(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[tuple["array[int]", "array[int]"]]:
    """Ids and loss mask of each message; those of a conversation, joined, are the ids of its rendered text.

    The mask is 1 on the content of an assistant's message and on the `<|im_end|>` after it, else 0. Header and content
    are encoded together, since a newline that opens a content can share a token with the header's newline; such a
    token is 0, for a generation prompt always ends in the header's own. Special tokens spelled out in a content stay
    plain characters.

    Raises:
        DataError: the tokenizer has no ChatML tokens, or a message is not text.
    """
    if not has_chatml(tokenizer):
        raise DataError(
            f"the tokenizer has no {MESSAGE_START} and {MESSAGE_END}",
            where="the tokenizer that encodes conversations",
            hint="add them with add_chatml",
        )
    start, end = (array("I", [id_of(tokenizer, token, where="ChatML")]) for token in CHATML)
    encoder = Encoder(_inside_a_text(literal(tokenizer)), where="the messages of a chat corpus")
    newline = encoder.encode("\n")
    headers = [f"{message.role}\n" for message in messages]
    bodies = [header + message.content for header, message in zip(headers, messages, strict=True)]
    encoded = []
    try:
        with native("the tokenizer that encodes conversations"):
            for message, (ids, silent) in zip(messages, encoder.with_heads(bodies, headers), strict=True):
                answers = int(message.role == ASSISTANT)
                mask = bytes(1 + silent) + bytes([answers]) * (len(ids) - silent + 1) + bytes(len(newline))
                encoded.append((start + ids + end + newline, array("B", mask)))
    except TypeError as error:
        raise DataError(
            "a message has an unpaired surrogate",
            where="the messages of a chat corpus",
            hint="drop the conversation, or repair its text",
        ) from error
    return encoded


def _inside_a_text(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that reads a text as a later part of one: tokenizers from SentencePiece put a blank before the first.

    What comes after the model is left out: it adds nothing here, and could move where a token of blanks begins to its
    end (`trim_offsets`).
    """
    plain = json.loads(tokenizer.to_str()) | {"post_processor": None}
    before = plain["pre_tokenizer"] or {}
    for part in before.get("pretokenizers", [before]):
        if part.get("prepend_scheme") == "first":
            part["prepend_scheme"] = "never"
    copy = Tokenizer.from_str(json.dumps(plain))
    copy.encode_special_tokens = tokenizer.encode_special_tokens
    return copy
