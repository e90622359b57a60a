"""Several corpora one after another as one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from lilliput.base.errors import RecipeError
from lilliput.data.conversations import ChatCorpus, Conversation
from lilliput.data.documents import Corpus, Document


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Text corpora, the documents of each after those of the one before.

    An id begins with the place of its corpus, "0/" and so on, and so stays unique. Groups stay as they are: what two
    corpora have under one group lands on one side.
    """

    sources: tuple[Corpus, ...]

    def __post_init__(self) -> None:
        _check(self.sources, "Joined", "documents")

    def identity(self) -> Any:
        """What the documents of each source depend on."""
        return [source.identity() for source in self.sources]

    def documents(self) -> Iterator[Document]:
        """Every document of every source."""
        for place, source in enumerate(self.sources):
            for document in source.documents():
                yield replace(document, id=f"{place}/{document.id}")


@dataclass(frozen=True, kw_only=True)
class JoinedChats:
    """Chat corpora, the conversations of each after those of the one before; ids and groups as in `Joined`."""

    sources: tuple[ChatCorpus, ...]

    def __post_init__(self) -> None:
        _check(self.sources, "JoinedChats", "conversations")

    def identity(self) -> Any:
        """What the conversations of each source depend on."""
        return [source.identity() for source in self.sources]

    def conversations(self) -> Iterator[Conversation]:
        """Every conversation of every source."""
        for place, source in enumerate(self.sources):
            for conversation in source.conversations():
                yield replace(conversation, id=f"{place}/{conversation.id}")


def _check(sources: tuple[Any, ...], name: str, yields: str) -> None:
    strange = [type(source).__name__ for source in sources if not hasattr(source, yields)]
    if strange or not sources:
        raise RecipeError(
            f"{', '.join(strange)} has no {yields}" if strange else "nothing is joined",
            where=f"{name}(sources=...)",
            hint="texts are joined by Joined, conversations by JoinedChats; give at least one corpus",
        )
