"""Replies of a teacher, each with where it comes from, as rows of a JSON Lines file."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from lilliput.data.messages import Message
from lilliput.data.replies.prompts import Prompt

STOP, LENGTH, FAILED = "stop", "length", "failed"
"""Reasons for a reply to end: by itself, cut off by the most tokens asked for, or there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A teacher's answer to a prompt, as it came."""

    key: str
    """Hash of the prompt."""
    number: int
    id: str
    group: str
    prompt: tuple[tuple[str, str], ...]
    """Role and content of each message."""
    text: str
    finish: str
    """The `finish_reason`: `stop`, `length`, or another word of the endpoint; `failed` without an answer."""
    error: str = ""
    """The reason why there is no answer."""
    teacher: str
    """Name of the model, as it calls itself where it does."""
    host: str = ""
    """Host of the endpoint; empty for a model that was loaded here."""
    settings: dict[str, Any]
    """Sampling settings that were asked for."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    """Both in the teacher's tokens; None where it does not count them."""
    seconds: float = 0.0
    """Time from the request to the whole answer, without waiting for another attempt."""
    at: str
    """Time of the answer, UTC."""

    @property
    def tokens(self) -> int:
        """Tokens of the answer, estimated where they were not counted."""
        return len(self.text) // 4 if self.completion_tokens is None else self.completion_tokens

    def messages(self) -> tuple[Message, ...]:
        """The conversation, of which the reply alone is learned."""
        return (*(Message(role, content, 0) for role, content in self.prompt), Message("assistant", self.text))

    def line(self) -> str:
        """The row of the file."""
        return json.dumps(asdict(self), separators=(",", ":")) + "\n"


def now() -> str:
    """The time in UTC."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def reply_to(prompt: Prompt, **fields: Any) -> Reply:
    """A reply to a prompt, with the other fields of `Reply`."""
    return Reply(
        key=prompt.key,
        number=prompt.number,
        id=prompt.id,
        group=prompt.group,
        prompt=tuple((message.role, message.content) for message in prompt.messages),
        **fields,
    )


def reply_of(line: str) -> Reply:
    """The reply of a row.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    fields = json.loads(line)
    fields["prompt"] = tuple((str(role), str(content)) for role, content in fields["prompt"])
    reply = Reply(**fields)
    if not all(isinstance(text, str) for text in (reply.key, reply.id, reply.group, reply.text, reply.finish)):
        raise TypeError("a text of the reply is none")
    if type(reply.number) is not int or not isinstance(reply.completion_tokens, int | None):
        raise TypeError("a number of the reply is none")
    return reply
