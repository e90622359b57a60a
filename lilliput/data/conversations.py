"""Conversations, and the corpus of local files that hold them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from lilliput.base.errors import DataError
from lilliput.data.documents import Files, check_length, files_of, nothing_in
from lilliput.data.rows import holds_rows, kind_of, rows, shown


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str
    weight: int = 1
    """0: an answer that is read and not learned."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in order."""

    messages: tuple[Message, ...]
    id: str
    group: str
    """The unit of the held-out split, as for documents."""


class ChatCorpus(Protocol):
    """Anything that yields conversations; a frozen keyword-only spec, so that a recipe can name it."""

    def conversations(self) -> Iterator[Conversation]:
        """Every conversation, in an order that never changes."""
        ...

    def identity(self) -> Any:
        """What the conversations depend on besides the spec, as a JSON value."""
        ...


@dataclass(frozen=True, kw_only=True)
class ChatFiles:
    """Local JSON Lines (plain or compressed) or Parquet files whose rows hold a list of {role, content}."""

    paths: tuple[str, ...]
    """Files, folders and glob patterns, as for `Files`."""
    messages: str = "messages"
    """Column that holds the list."""
    id: str = "id"
    """Column that names the row, and so its group; a row without it is "<file name>:<row number>"."""

    def identity(self) -> list[Any]:
        """Size and time of change of every file."""
        return Files(paths=self.paths).identity()

    def conversations(self) -> Iterator[Conversation]:
        """Yield the conversations in the order of the files and of their rows.

        Raises:
            DataError: a file is missing, damaged or of another kind, a row holds no such list, or none has a row.
        """
        empty = True
        for path in files_of(self.paths):
            if not holds_rows(path):
                raise DataError(
                    f"a {kind_of(path) or 'nameless'} file holds no conversations",
                    where=str(path),
                    hint="give .jsonl files (plain or compressed) or .parquet files",
                )
            for record in rows(path, (self.messages, self.id)):
                turns, name = record.column(self.messages), record.id(self.id)
                empty = False
                yield Conversation(messages_of(turns, str(record)), name, name)
        if empty:
            raise nothing_in(self.paths)


def messages_of(turns: Any, where: str) -> tuple[Message, ...]:
    """The messages of a list of {role, content}.

    Raises:
        DataError: it is no such list, an empty one, or longer than a document may be.
    """
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{shown(turns)} is not a list of messages", where=where, hint=_FORM)
    messages = []
    for place, turn in enumerate(turns, 1):
        role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
        if not (isinstance(role, str) and role and isinstance(content, str)):
            raise DataError(f"message {place} is {shown(turn)}, without role or content", where=where, hint=_FORM)
        weight = 1 if turn.get("weight") is None else turn["weight"]
        if weight not in (0, 1):
            raise DataError(f"the weight of message {place} is {shown(weight)}", where=where, hint="give 0 or 1")
        messages.append(Message(role, content, int(weight)))
    check_length(where, *(message.content for message in messages))
    return tuple(messages)


_FORM = 'write [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]'
