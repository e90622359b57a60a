"""Conversations, encoded once and packed whole into rows of one length, with the assistant's tokens marked.

Token files are those of `packed_rows.py`: a conversation is a document, and a target what an assistant answers for.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lilliput.base.background import run_in_background
from lilliput.base.errors import DataError, RecipeError
from lilliput.base.files import new_folder
from lilliput.base.hash_cache import HashCache
from lilliput.data.conversations import ChatCorpus, Conversation
from lilliput.data.dropped import DropSamples, iterate
from lilliput.data.lost_conversations import in_words
from lilliput.data.messages import Message, messages_of
from lilliput.data.packed_rows import ARRAYS, PackedReader, PackedRows, RowWriter, byte_lengths, file_name
from lilliput.data.readers.rows import read_back
from lilliput.data.split import HeldOut
from lilliput.data.token_files import SIDES, Side, new_index, seal_index
from lilliput.tokenizer.bpe import END
from lilliput.tokenizer.chatml import encode_messages

HELDOUT_CONVERSATIONS = "heldout.jsonl"
ROLES = ("system", "user", "assistant", "tool")
"""Roles of messages; a conversation with another role would not be encoded as its writer meant."""
_ROLES_TOLD = 8
"""Unknown roles that are counted each by itself."""
_BATCH_CONVERSATIONS = 2_048
_BATCH_CHARACTERS = 4_000_000


def write_chats(
    corpus: ChatCorpus, tokenizer: Tokenizer, split: HeldOut, folder: Path, length: int, end: str = END
) -> dict[str, Any]:
    """Encode and pack a chat corpus into a folder, which appears whole or not at all.

    A conversation too long for a row loses its oldest turns, never its system prompt nor part of a turn. One that is
    still too long, without an assistant's tokens or with a role that is none of `ROLES`, is dropped.

    Args:
        corpus: the conversations.
        tokenizer: has the ChatML tokens.
        split: decides by a conversation's group which side it lands on.
        folder: is replaced if it is there.
        length: T, tokens of a row.
        end: the tokenizer's token that ends documents; here it fills up rows.

    Returns:
        The index: `tokenizer`, `vocab`, `end`, `dtype`, `length`; `sides` with rows, conversations, tokens, targets
        (tokens of weight 1), how many conversations were shortened and how many dropped for which reason, of each;
        `files`; `sha256` over all of it.

    Raises:
        DataError: the tokenizer has no ChatML tokens, or no conversation is left to train on.
    """
    index = new_index("conversations", tokenizer, end) | {"length": length}
    with new_folder(folder) as partial:
        with ExitStack() as stack:
            texts = stack.enter_context(open(partial / HELDOUT_CONVERSATIONS, "w", encoding="utf-8", newline="\n"))
            dropped = stack.enter_context(DropSamples(partial))
            writers = {side: stack.enter_context(_Writer(side, partial, index)) for side in SIDES}
            for batch in _batches(dropped.kept(iterate(corpus, "conversations"))):
                messages = [message for each in batch for message in each.messages]
                encoded = without_unlearned(messages, run_in_background(encode_messages, tokenizer, messages))
                first = 0
                for conversation in batch:
                    after = first + len(conversation.messages)
                    side: Side = "heldout" if split.is_heldout(conversation.group) else "train"
                    reason = writers[side].add_conversation(conversation.messages, encoded[first:after])
                    if reason is not None:
                        dropped.add(reason, conversation.id, as_text(conversation.messages))
                    elif side == "heldout":
                        texts.write(_line(conversation))
                    first = after
        if not writers["train"].rows:
            reasons = in_words({**dropped.by_corpus, **writers["train"].dropped}) or "all of it is held out"
            raise DataError(
                "no conversation is left to train on",
                where=f"the chat corpus of {folder.name}: {reasons}",
                hint=f"name the roles {', '.join(ROLES)}, raise the row length, or hold out a smaller share",
            )
        names = [file_name(side, array) for side in SIDES for array in ARRAYS]
        index["files"] = [{"name": name} for name in (*names, HELDOUT_CONVERSATIONS)]
        index["sides"] = {side: writers[side].totals() for side in SIDES}
        return seal_index(partial, index)


class PackedChats(PackedRows):
    """A folder that `write_chats` wrote, verified and open for reading.

    Args:
        folder: the folder.
        tokenizer_hash: the tokenizer that the ids must be of; None accepts any.
        verified: knows which files need not be hashed again.

    Raises:
        DataError: a file is missing or differs from the index, or the ids are of another tokenizer.
    """

    def __init__(self, folder: Path, tokenizer_hash: str | None = None, verified: HashCache | None = None):
        super().__init__(folder, "conversations", tokenizer_hash, verified, _lengths)

    @property
    def heldout_size(self) -> int:
        """Conversations that are held out."""
        return self.index["sides"]["heldout"]["conversations"]

    def heldout_loss(self, total: float, targets: float) -> float:
        """Nats per token of an answer."""
        return total / targets

    def heldout_conversations(self) -> Iterator[tuple[str, tuple[Message, ...]]]:
        """Id and messages of every held-out conversation, whole, in the order of the corpus."""
        return read_heldout(self.folder / HELDOUT_CONVERSATIONS)


def read_heldout(file: Path) -> Iterator[tuple[str, tuple[Message, ...]]]:
    """Yield id and messages of every conversation in a `HELDOUT_CONVERSATIONS`."""
    for record in read_back(file):
        yield record.text("id"), messages_of(record.column("messages"), str(record))


@dataclass(frozen=True, kw_only=True)
class ChatData:
    """Training on the assistant's side of a chat corpus."""

    corpus: str
    """Name of the chat corpus."""
    seed: int = 0
    """Decides, with the number of the pass, the order of the rows."""
    lost: float = 0.05
    """Share of the conversations that may be dropped, or shortened by their oldest turns; more is an error."""

    def __post_init__(self) -> None:
        if not 0 <= self.lost <= 1:
            raise RecipeError(f"lost cannot be {self.lost}", where="ChatData.lost", hint="give a fraction in [0, 1]")

    @property
    def corpora(self) -> tuple[str, ...]:
        """Name of the corpus that is read."""
        return (self.corpus,)

    def bytes_per_token(self, tokens: Mapping[str, PackedChats]) -> None:
        """Only answers are targets, so that bits per byte would mean nothing."""

    def open(self, tokens: Mapping[str, PackedChats]) -> PackedReader:
        """Read from the train side of this corpus.

        Raises:
            DataError: the corpus is not among them.
        """
        if self.corpus not in tokens:
            raise DataError(
                f"there are no rows of {self.corpus!r}",
                where="ChatData(corpus=...)",
                hint=f"the chat corpora with rows are: {', '.join(sorted(tokens)) or 'none'}",
            )
        return PackedReader(self.corpus, tokens[self.corpus], self.seed, "conversations")


Encoded = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Ids and mask of each message."""


class _Writer(RowWriter):
    """The files of one side, and counts of it."""

    def __init__(self, side: Side, folder: Path, index: Mapping[str, Any]):
        super().__init__(side, folder, index)
        self.counts = {"conversations": 0, "tokens": 0, "targets": 0, "shortened": 0}
        self.dropped: Counter[str] = Counter()

    def add_conversation(self, messages: Sequence[Message], encoded: Encoded) -> str | None:
        """Take a conversation, shortened if need be; return the reason if it is dropped."""
        kept = shorten(messages, encoded, self._length)
        reason = self._reason(messages, kept)
        if reason is not None:
            self.dropped[reason] += 1
            return reason
        ids = [token for part, _ in kept for token in part]
        mask = [weight for _, part in kept for weight in part]
        self.counts["shortened"] += len(kept) < len(messages)
        self.counts["conversations"] += 1
        self.counts["tokens"] += len(ids)
        self.counts["targets"] += sum(mask)
        self.add((ids, mask))
        return None

    def _reason(self, messages: Sequence[Message], kept: Encoded) -> str | None:
        """The reason for dropping a conversation of which this much is kept; None if it stays."""
        unknown = next((message.role for message in messages if message.role not in ROLES), None)
        if unknown is not None:
            reason = f"with the unknown role {unknown[:40]!a}"
            return reason if reason in self.dropped or len(self.dropped) < _ROLES_TOLD else "with other unknown roles"
        if not any(any(part) for _, part in kept):
            return "without an answer of an assistant"
        return "longer than a row" if sum(len(part) for part, _ in kept) > self._length else None

    def totals(self) -> dict[str, Any]:
        return {"rows": self.rows} | self.counts | {"dropped": dict(sorted(self.dropped.items()))}


def shorten(messages: Sequence[Message], encoded: Encoded, length: int) -> Encoded:
    """Drop the oldest turns until the rest fits into `length` tokens or is a single turn; see `first_kept`."""
    head, first = first_kept(messages, [len(ids) for ids, _ in encoded], length)
    return [*encoded[:head], *encoded[first:]]


def first_kept(messages: Sequence[Message], sizes: Sequence[int], length: int) -> tuple[int, int]:
    """Return how many system messages a conversation begins with, which stay, and the first one that stays after them.

    A turn is a user's message and what follows it. Without the oldest ones the rest fits into `length`, or is a single
    turn.
    """
    head = next((index for index, message in enumerate(messages) if message.role != "system"), len(messages))
    begins = [index for index in range(head + 1, len(messages)) if messages[index].role == "user"]
    fitting = (index for index in (head, *begins) if sum(sizes[:head]) + sum(sizes[index:]) <= length)
    return head, next(fitting, begins[-1] if begins else head)


def as_text(messages: Sequence[Message]) -> str:
    """Messages as one text, for samples."""
    return "\n".join(f"{message.role}: {message.content}" for message in messages)


def without_unlearned(messages: Sequence[Message], encoded: Encoded) -> Encoded:
    """Return encoded messages with no target in a message of weight 0."""
    pairs = zip(messages, encoded, strict=True)
    return [(ids, mask if message.weight else [0] * len(mask)) for message, (ids, mask) in pairs]


def _batches(conversations: Iterable[Conversation]) -> Iterator[list[Conversation]]:
    batch: list[Conversation] = []
    characters = 0
    for conversation in conversations:
        batch.append(conversation)
        characters += sum(len(message.content) for message in conversation.messages)
        if len(batch) == _BATCH_CONVERSATIONS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _lengths(index: dict[str, Any]) -> dict[str, int]:
    """Bytes of the numbers of every file by an index; see `open_index`."""
    lengths = byte_lengths(index, ("conversations", "tokens", "targets"))
    names = {file["name"] for file in index["files"]}
    if names != {*lengths, HELDOUT_CONVERSATIONS}:
        raise ValueError(f"{len(names)} files")
    return lengths


def _line(conversation: Conversation) -> str:
    messages = [
        {"role": message.role, "content": message.content} | ({} if message.weight else {"weight": 0})
        for message in conversation.messages
    ]
    return json.dumps({"id": conversation.id, "messages": messages}) + "\n"
