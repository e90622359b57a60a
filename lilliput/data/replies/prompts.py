"""Prompts for a teacher: conversations up to their last user's turn, each once."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from lilliput.data.conversations import ChatCorpus, Conversation
from lilliput.data.messages import ASSISTANT, Message

ROLES = ("system", "user", ASSISTANT)
"""Roles that any endpoint knows."""
_PER_TOKEN = 4
"""Characters per token, before anything is encoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Messages that a teacher answers."""

    number: int
    """Its place among the prompts."""
    messages: tuple[Message, ...]
    id: str
    group: str
    """Both of the conversation, see `Conversation`."""
    own_answer: str | None
    """Answer of the corpus itself, where it has one."""

    @property
    def key(self) -> str:
        """Hash of roles and contents: by it a reply is found again, whatever else becomes of the corpus."""
        said = [[message.role, message.content] for message in self.messages]
        return sha256(json.dumps(said, separators=(",", ":")).encode()).hexdigest()[:32]

    @property
    def tokens(self) -> int:
        """Estimated tokens."""
        return sum(len(message.content) for message in self.messages) // _PER_TOKEN + 4 * len(self.messages)


class Prompts:
    """The first prompts of a chat corpus.

    Args:
        corpus: the conversations.
        count: prompts at most.
    """

    def __init__(self, corpus: ChatCorpus, count: int):
        self._corpus, self._count = corpus, count
        self.skipped: Counter[str] = Counter()
        """Conversations that give no prompt, by reason, once they have been read."""

    def __iter__(self) -> Iterator[Prompt]:
        self.skipped.clear()
        seen: set[str] = set()
        for conversation in self._corpus.conversations():
            if len(seen) == self._count:
                return
            found = _prompt(conversation, len(seen))
            if isinstance(found, str):
                self.skipped[found] += 1
            elif found.key in seen:
                self.skipped["the same prompt again"] += 1
            else:
                seen.add(found.key)
                yield found


def _prompt(conversation: Conversation, number: int) -> Prompt | str:
    """The prompt of a conversation, or the reason why it has none."""
    messages = conversation.messages
    if any(message.role not in ROLES for message in messages):
        return "with other roles than system, user and assistant"
    last = next((place for place in reversed(range(len(messages))) if messages[place].role == "user"), None)
    if last is None or not messages[last].content.strip():
        return "without a user's turn"
    after = messages[last + 1 : last + 2]
    return Prompt(
        number=number,
        messages=messages[: last + 1],
        id=conversation.id,
        group=conversation.group,
        own_answer=after[0].content if after else None,
    )
