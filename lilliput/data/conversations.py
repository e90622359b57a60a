"""Conversations, and what a corpus of them has."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from lilliput.data.messages import Message


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
        """Return what the conversations depend on besides the spec, as a JSON value."""
        ...
