"""Messages of conversations: every field of one is obeyed, refused by name, or known to tell of it only."""

from dataclasses import dataclass
from typing import Any

from lilliput.base.errors import DataError
from lilliput.data.documents import check_length
from lilliput.data.readers.rows import shown

ASSISTANT = "assistant"
SPEAKERS = {"human": "user", "gpt": ASSISTANT, "system": "system", "user": "user", ASSISTANT: ASSISTANT}
"""Roles by the names that `from` has for them."""
TELLING = frozenset(
    "id uuid message_id parent_id conversation_id turn turn_id turn_identifier index timestamp created_at create_time "
    "date model model_name language lang source score rating hash hashed_ip country state header redacted toxic tokens "
    "token_count".split()
)
"""Fields that tell of a message and are no part of it; nothing is done with them."""

_MEANT = SPEAKERS | dict.fromkeys(("model", "bot", "ai", "chatgpt", "chatbot"), ASSISTANT)
"""Roles by what else they are called, in small letters. Under these names an answer would never be learned."""
_NOTHING = (None, "", [], {}, "[]", "{}", "null")
_FORM = 'write [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]'


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str
    weight: int = 1
    """0: an answer that is read and not learned."""


def messages_of(turns: Any, where: str) -> tuple[Message, ...]:
    """The messages of a list of {role, content} or {from, value}.

    A message may have a `weight` of 0 or 1, or `train`, false or true; its content may be a list of parts of text.

    Raises:
        DataError: it is no such list, an empty one, or longer than a document may be; or a message holds more than can
            be learned from.
    """
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{shown(turns)} is not a list of messages", where=where, hint=_FORM)
    messages = tuple(_message(turn, f"message {number}", where) for number, turn in enumerate(turns, 1))
    check_length(where, *(message.content for message in messages))
    return messages


def is_nothing(value: Any) -> bool:
    """Return whether a value is as good as not there."""
    return any(value == nothing and type(value) is type(nothing) for nothing in _NOTHING)


def _message(turn: Any, name: str, where: str) -> Message:
    fields = {key: value for key, value in turn.items() if value is not None} if isinstance(turn, dict) else {}
    speaker, text = ("from", "value") if "from" in fields else ("role", "content")
    role, content = fields.pop(speaker, None), fields.pop(text, None)
    weight = _weight(fields, role, name, where)
    for key, value in fields.items():
        if key not in TELLING and not is_nothing(value):
            raise DataError(
                f"{name} has {key!r:.80}: {shown(value)}, which training does not use",
                where=where,
                hint=f'write it into "{text}", or leave such conversations out',
            )
    if isinstance(content, list) and content:
        content = "".join(_text_of(part, name, where) for part in content)
    if not (isinstance(role, str) and role and isinstance(content, str)):
        raise DataError(f"{name} is {shown(turn)}, without role or content", where=where, hint=_FORM)
    return Message(_role(role, speaker, name, where), content, weight)


def _role(role: str, speaker: str, name: str, where: str) -> str:
    if speaker == "from" and role in SPEAKERS:
        return SPEAKERS[role]
    meant = _MEANT.get(role.lower())
    if speaker == "role" and meant in (None, role):
        return role
    hint = f'write "{meant}"' if meant else f"write one of {', '.join(SPEAKERS)}, or leave such conversations out"
    raise DataError(f'"{speaker}" of {name} is {shown(role)}', where=where, hint=hint)


def _weight(fields: dict[str, Any], role: Any, name: str, where: str) -> int:
    given = {key: fields.pop(key) for key in ("weight", "train") if key in fields}
    wrong = {key: value for key, value in given.items() if not isinstance(value, int | float) or value not in (0, 1)}
    if wrong or len(set(given.values())) > 1:
        raise DataError(
            f"{name} has {shown(wrong or given)}",
            where=where,
            hint="give one weight, 0 or 1: an answer counts fully or not at all",
        )
    if given.get("train") and role not in (ASSISTANT, "gpt"):
        raise DataError(
            f"{name} is marked for training but is from {shown(role)}",
            where=where,
            hint=f'set "train" to false there: only messages of the role "{ASSISTANT}" are trained on',
        )
    return int(next(iter(given.values()), 1))


def _text_of(part: Any, name: str, where: str) -> str:
    fields = {key: value for key, value in part.items() if not is_nothing(value)} if isinstance(part, dict) else {}
    text = fields.pop("text", "")
    if fields != {"type": "text"} or not isinstance(text, str):
        raise DataError(
            f"{name} has the part {shown(part)}, which is not text",
            where=where,
            hint='write parts as {"type": "text", "text": "..."}, or leave such conversations out',
        )
    return text
