"""Conversations as what a corpus holds: rows of whole ones, measured in nats per token of an answer."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import Tokenizer

from lilliput.base.hash_cache import HashCache
from lilliput.data.chat_rows import PackedChats, write_chats
from lilliput.data.conversations import Conversation
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.corpus_format import CorpusFormat, WriteSettings
from lilliput.data.decontaminated import Decontaminated
from lilliput.data.documents import TextHash
from lilliput.data.dropped import Dropped, iterate, kept
from lilliput.data.lost_conversations import check_lost
from lilliput.data.split import HeldOut


@dataclass(frozen=True)
class ChatFormat(CorpusFormat):
    """Conversations."""

    unit: ClassVar[str] = "nats per answer token"
    noun: ClassVar[str] = "conversations"
    packs_rows: ClassVar[bool] = True
    target_share: ClassVar[float] = 0.5
    is_searched: ClassVar[bool] = True

    def items(self, corpus: Any) -> Iterator[Conversation]:
        return kept(self.iterate(corpus))

    def iterate(self, corpus: Any) -> Iterator[Conversation | Dropped]:
        """Every item of a corpus, and the reasons for which it dropped others."""
        return iterate(corpus, "conversations")

    def text(self, item: Conversation) -> str:
        """The contents of all messages."""
        return "\n".join(message.content for message in item.messages)

    def without_items(self, corpus: Any, index: Path) -> Decontaminated:
        return Decontaminated(source=corpus, format=self, index=index)

    def characters(self, item: Conversation) -> int:
        return sum(len(message.content.strip()) for message in item.messages)

    def write(
        self, corpus: Any, tokenizer: Tokenizer, split: HeldOut, folder: Path, settings: WriteSettings
    ) -> dict[str, Any]:
        hashing = _HashingChats(corpus)
        with settings.console.status(f"{settings.name}: encoding"):
            index = write_chats(hashing, tokenizer, split, folder, settings.length, settings.end)
        outputs = {"text_sha256": hashing.texts.hex(), "index_sha256": index["sha256"], "sides": index["sides"]}
        return outputs | ({"dropped": dict(hashing.dropped)} if hashing.dropped else {})

    def open(self, folder: Path, tokenizer_hash: str | None, verified: HashCache | None) -> PackedChats:
        return PackedChats(folder, tokenizer_hash, verified)

    def size(self, side: Mapping[str, Any]) -> int:
        return side["conversations"]

    def tokens_per_pass(self, side: Mapping[str, Any], length: int) -> int:
        return (length - 1) * side["rows"]  # the first token of a row is no target

    def validate(
        self, name: str, sides: Mapping[str, Mapping[str, Any]], *, length: int, lost: float, phases: Sequence[str]
    ) -> None:
        check_lost(name, sides, length, lost, phases, noun="conversations", reader="ChatData")

    def from_files(self, corpus: Any, paths: tuple[str, ...], column: str) -> ChatFiles:
        files = corpus if isinstance(corpus, ChatFiles) else ChatFiles(paths=paths)
        return replace(files, paths=paths, messages=column or files.messages)


CHATS = ChatFormat()


class _HashingChats:
    """A chat corpus that hashes its conversations as they go by."""

    def __init__(self, corpus: Any):
        self._corpus, self.texts = corpus, TextHash()
        self.dropped: Counter[str] = Counter()
        """Number of conversations that the corpus dropped, by reason."""

    def identity(self) -> Any:
        return self._corpus.identity()

    def conversations(self) -> Iterator[Conversation]:
        return kept(self.iterate())

    def iterate(self) -> Iterator[Conversation | Dropped]:
        for item in CHATS.iterate(self._corpus):
            if isinstance(item, Dropped):
                self.dropped[str(item)] += 1
            else:
                for message in item.messages:
                    self.texts.add(message.role, message.content)
            yield item
