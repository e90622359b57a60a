"""Several corpora one after another as one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from lilliput.base.errors import RecipeError
from lilliput.data.conversations import ChatCorpus, Conversation
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Filtered
from lilliput.data.corpora.hub import HubChats, HubText
from lilliput.data.corpora.hub_partitions import HubPartitions
from lilliput.data.corpora.pairs import HubPairs, PairFiles, ShuffledAnswers
from lilliput.data.corpora.stand_in import StandIn
from lilliput.data.documents import Corpus, Document, documents_of
from lilliput.data.resumable import FractionRead, Item, Offset, is_seekable, iterate_from


@dataclass(frozen=True, kw_only=True)
class Concatenated:
    """Text corpora, the documents of each after those of the one before.

    An id begins with the index of its corpus, "0/" and so on, and so stays unique. Groups stay as they are: what two
    corpora have under one group lands on one side.
    """

    sources: tuple[Corpus, ...]

    def __post_init__(self) -> None:
        _check(self.sources, "Concatenated", "documents")

    def identity(self) -> Any:
        """Return what the documents of each source depend on."""
        return [source.identity() for source in self.sources]

    @property
    def is_seekable(self) -> bool:
        """Return whether every source does."""
        return all(map(is_seekable, self.sources))

    def documents(self) -> Iterator[Document]:
        """Every document of every source."""
        return documents_of(self.iterate_from())

    def iterate_from(self, after: Offset | None = None) -> Iterator[tuple[Item, Offset]]:
        """The same, and why filters dropped others, with marks: the index of the source, and its own mark."""
        first, within = after or (0, None)
        for index, source in enumerate(self.sources[first:], first):
            for item, mark in iterate_from(source, within if index == first else None):
                yield item if isinstance(item, str) else replace(item, id=f"{index}/{item.id}"), [index, mark]

    def fraction_read(self) -> FractionRead:
        """Nothing: how the sources compare in size is not known."""
        return lambda mark: None


@dataclass(frozen=True, kw_only=True)
class ConcatenatedChats:
    """Chat corpora, the conversations of each after those of the one before; ids and groups as in `Concatenated`."""

    sources: tuple[ChatCorpus, ...]

    def __post_init__(self) -> None:
        _check(self.sources, "ConcatenatedChats", "conversations")

    def identity(self) -> Any:
        """Return what the conversations of each source depend on."""
        return [source.identity() for source in self.sources]

    def conversations(self) -> Iterator[Conversation]:
        """Every conversation of every source."""
        for index, source in enumerate(self.sources):
            for conversation in source.conversations():
                yield replace(conversation, id=f"{index}/{conversation.id}")


def _check(sources: tuple[Any, ...], name: str, yields: str) -> None:
    strange = [type(source).__name__ for source in sources if not hasattr(source, yields)]
    if strange or not sources:
        raise RecipeError(
            f"{', '.join(strange)} has no {yields}" if strange else "nothing is joined",
            where=f"{name}(sources=...)",
            hint="texts are joined by Concatenated, conversations by ConcatenatedChats; give at least one corpus",
        )


def at_revision(corpus: Any, identity: Any) -> Any:
    """The corpus that had this identity, as far as it, or one within it, is on the hub; else as it is."""
    match corpus:
        case HubText() | HubChats() | HubPairs() | HubPartitions():
            return corpus.at_revision(identity)
        case Filtered() | StandIn() | ShuffledAnswers():
            return replace(corpus, source=at_revision(corpus.source, identity))
        case Concatenated() | ConcatenatedChats():
            return replace(corpus, sources=tuple(map(at_revision, corpus.sources, identity)))
    return corpus


def is_own(corpus: Any) -> bool:
    """Return whether a corpus reads the user's own files, which may be private."""
    if isinstance(corpus, TextFiles | ChatFiles | PairFiles) or (isinstance(corpus, HubPartitions) and corpus.is_local):
        return True
    inside = [getattr(corpus, name, None) for name in ("source", "sources", "prompts")]
    return any(is_own(part) for parts in inside for part in (parts if isinstance(parts, tuple) else [parts]) if part)
