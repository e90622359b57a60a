"""Conversations, encoded once and packed whole into rows of one length, with the assistant's tokens marked.

A side is three `.bin` files of the layout in `token_files.py`, each [rows, length]: tokens (uint16 or uint32), weight
(uint8, 1 where an assistant answers for the token) and document_ids (uint16, number of the conversation in the row).
What a row has left over is the end token at weight 0, a document of its own.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from tokenizers import Tokenizer

from lilliput.base.background import run_in_background
from lilliput.base.errors import DataError, RecipeError
from lilliput.base.files import new_folder
from lilliput.base.hash_cache import HashCache
from lilliput.data.batch import Batch, Cursor
from lilliput.data.conversations import ChatCorpus, Conversation
from lilliput.data.lost_conversations import in_words
from lilliput.data.messages import Message, messages_of
from lilliput.data.packing import pack
from lilliput.data.readers.rows import read_back
from lilliput.data.split import HeldOut
from lilliput.data.token_files import SIDES, Side, counted, header, in_bytes, new_index, open_index, seal_index
from lilliput.tokenizer.bpe import END
from lilliput.tokenizer.chatml import encode_messages

HELDOUT_CONVERSATIONS = "heldout.jsonl"
ROLES = ("system", "user", "assistant", "tool")
"""Roles of messages; a conversation with another role would not be encoded as its writer meant."""
_ROLES_TOLD = 8
"""Unknown roles that are counted each by itself."""
_ARRAYS = ("tokens", "weight", "document_ids")
_WINDOW = 32_768
"""Conversations packed together: enough to fill rows well, few enough to hold in memory."""
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
            writers = {side: stack.enter_context(_Writer(side, partial, index)) for side in SIDES}
            for batch in _batches(corpus.conversations()):
                messages = [message for each in batch for message in each.messages]
                encoded = _weighted(messages, run_in_background(encode_messages, tokenizer, messages))
                first = 0
                for conversation in batch:
                    after = first + len(conversation.messages)
                    side: Side = "heldout" if split.is_heldout(conversation.group) else "train"
                    if writers[side].add(conversation.messages, encoded[first:after]) and side == "heldout":
                        texts.write(_line(conversation))
                    first = after
        if not writers["train"].counts["rows"]:
            reasons = in_words(writers["train"].dropped) or "all of it is held out"
            raise DataError(
                "no conversation is left to train on",
                where=f"the chat corpus of {folder.name}: {reasons}",
                hint=f"name the roles {', '.join(ROLES)}, raise the row length, or hold out a smaller share",
            )
        names = [_file_name(side, array) for side in SIDES for array in _ARRAYS]
        index["files"] = [{"name": name} for name in (*names, HELDOUT_CONVERSATIONS)]
        index["sides"] = {side: writers[side].totals() for side in SIDES}
        return seal_index(partial, index)


class PackedChats:
    """A folder that `write_chats` wrote, verified and open for reading.

    Args:
        folder: the folder.
        tokenizer_hash: the tokenizer that the ids must be of; None accepts any.
        verified: knows which files need not be hashed again.

    Raises:
        DataError: a file is missing or differs from the index, or the ids are of another tokenizer.
    """

    def __init__(self, folder: Path, tokenizer_hash: str | None = None, verified: HashCache | None = None):
        self.folder = folder
        self.tokenizer: Tokenizer | None = None
        """Whose ids these are, where whoever opened them has told."""
        token_folder = open_index(folder, "conversations", tokenizer_hash, verified, _lengths)
        self.index = token_folder.index
        self.length: int = self.index["length"]
        dtypes = dict(zip(_ARRAYS, _dtypes(self.index), strict=True))
        below = dict(zip(_ARRAYS, (self.index["vocab"], 2, 2**16), strict=True))
        self._arrays = {
            (side, array): token_folder.numbers(_file_name(side, array), dtypes[array], below[array])
            for side in SIDES
            for array in _ARRAYS
            if self.count(side)
        }

    def count(self, side: Side) -> int:
        """Number of rows of a side."""
        return self.index["sides"][side]["rows"]

    def take(self, side: Side, indices: Sequence[int] | np.ndarray) -> Batch:
        """The rows at these indices, each below `count(side)`."""
        tokens, weight, document_ids = (self._arrays[side, array].rows(indices, self.length) for array in _ARRAYS)
        return Batch(
            tokens=torch.from_numpy(tokens.astype(np.int64)),
            weight=torch.from_numpy(weight.astype(np.float32)),
            document_ids=torch.from_numpy(document_ids.astype(np.int32)),
        )

    @property
    def heldout_size(self) -> int:
        """Conversations that are held out."""
        return self.index["sides"]["heldout"]["conversations"]

    def heldout_batches(self, length: int, positions: int, rows: Callable[[int], int]) -> Iterator[Batch]:
        """The first held-out rows, as long as they were packed; see `TokenFiles`."""
        first, size = range(min(self.count("heldout"), max(1, positions // self.length))), rows(self.length)
        return (self.take("heldout", list(first[start : start + size])) for start in range(0, len(first), size))

    def heldout_loss(self, total: float, targets: float) -> float:
        """Nats per token of an answer."""
        return total / targets

    def heldout_conversations(self) -> Iterator[tuple[str, tuple[Message, ...]]]:
        """Id and messages of every held-out conversation, whole, in the order of the corpus."""
        for record in read_back(self.folder / HELDOUT_CONVERSATIONS):
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

    def open(self, tokens: Mapping[str, PackedChats]) -> "ChatsReader":
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
        return ChatsReader(self.corpus, tokens[self.corpus], self.seed)


class ChatsReader:
    """The train rows of a chat corpus, every pass in another order."""

    def __init__(self, name: str, rows: PackedChats, seed: int):
        self._name, self._rows, self._seed = name, rows, seed
        self._order = lru_cache(maxsize=2)(self._find_order)

    @property
    def tokens_available(self) -> int:
        """Tokens of all rows, with what fills them up."""
        return self._rows.count("train") * self._rows.length

    def read(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> tuple[Batch, Cursor]:
        """The next rows and the cursor after them, as `MixtureReader.read`; the end of one pass may share a batch with
        the beginning of the next.

        Args:
            cursor: where to begin.
            rows: B, rows of the batch.
            length: T, tokens of a row, as they were packed.
            overlap: for the sake of the common signature: conversations are whole, so these rows have nothing to share.

        Raises:
            DataError: rows of another length are stored, or the cursor is of another source.
        """
        if length != self._rows.length:
            raise DataError(
                f"the conversations are packed into rows of {self._rows.length} tokens, not of {length}",
                where=str(self._rows.folder),
                hint='write them again with "lilliput run RECIPE"',
            )
        unknown = sorted(name for name, _ in cursor.positions if name != self._name)
        if unknown:
            raise DataError(
                f"the cursor is in {', '.join(unknown)}, not in {self._name}",
                where="the data position of a checkpoint",
                hint="resume with the chat corpus that the run started with",
            )
        start, count = cursor.of(self._name), self._rows.count("train")
        indices = [int(self._order(row // count)[row % count]) for row in range(start, start + rows)]
        return self._rows.take("train", indices), Cursor(positions=((self._name, start + rows),))

    def _find_order(self, epoch: int) -> np.ndarray:
        # RandomState: NumPy promises its numbers for ever; those of a Generator may change with a version.
        return np.random.RandomState([self._seed, epoch]).permutation(self._rows.count("train"))


Encoded = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Ids and mask of each message."""


class _Writer:
    """The three files of one side."""

    def __init__(self, side: Side, folder: Path, index: dict[str, Any]):
        self.counts = {"rows": 0, "conversations": 0, "tokens": 0, "targets": 0, "shortened": 0}
        self.dropped: Counter[str] = Counter()
        self._side, self._folder, self._index, self._length = side, folder, index, index["length"]
        self._window: list[tuple[list[int], list[int]]] = []
        self._files: list[BinaryIO] = []

    def __enter__(self) -> "_Writer":
        for array, dtype in zip(_ARRAYS, _dtypes(self._index), strict=True):
            self._files.append(open(self._folder / _file_name(self._side, array), "wb"))
            self._files[-1].write(header(dtype, self._index["tokenizer"]))
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._pack_window()
        for file in self._files:
            file.close()

    def add(self, messages: Sequence[Message], encoded: Encoded) -> bool:
        """Take a conversation, shortened if need be; False: it is dropped."""
        unknown = next((message.role for message in messages if message.role not in ROLES), None)
        if unknown is not None:
            self.dropped[self._reason(unknown)] += 1
            return False
        kept = shorten(messages, encoded, self._length)
        if not any(any(part) for _, part in kept):
            self.dropped["without an answer of an assistant"] += 1
            return False
        if sum(len(part) for part, _ in kept) > self._length:
            self.dropped["longer than a row"] += 1
            return False
        ids = [token for part, _ in kept for token in part]
        mask = [weight for _, part in kept for weight in part]
        self.counts["shortened"] += len(kept) < len(messages)
        self.counts["conversations"] += 1
        self.counts["tokens"] += len(ids)
        self.counts["targets"] += sum(mask)
        self._window.append((ids, mask))
        if len(self._window) == _WINDOW:
            self._pack_window()
        return True

    def _reason(self, role: str) -> str:
        reason = f"with the unknown role {role[:40]!a}"
        return reason if reason in self.dropped or len(self.dropped) < _ROLES_TOLD else "with other unknown roles"

    def totals(self) -> dict[str, Any]:
        return self.counts | {"dropped": dict(sorted(self.dropped.items()))}

    def _pack_window(self) -> None:
        for row in pack([len(ids) for ids, _ in self._window], self._length):
            tokens = np.full(self._length, self._index["end"], dtype=np.int64)
            weight = np.zeros(self._length, dtype=np.int64)
            document_ids = np.full(self._length, len(row), dtype=np.int64)
            first = 0
            for number, item in enumerate(row):
                ids, mask = self._window[item]
                after = first + len(ids)
                tokens[first:after], weight[first:after], document_ids[first:after] = ids, mask, number
                first = after
            for file, numbers, dtype in zip(
                self._files, (tokens, weight, document_ids), _dtypes(self._index), strict=True
            ):
                file.write(in_bytes(numbers, dtype))
            self.counts["rows"] += 1
        self._window.clear()


def shorten(messages: Sequence[Message], encoded: Encoded, length: int) -> Encoded:
    """Drop the oldest turns until the rest fits into `length` tokens or is a single turn.

    A turn is a user's message and what follows it; system messages at the beginning belong to all of them and stay.
    """
    sizes = [len(ids) for ids, _ in encoded]
    head = next((index for index, message in enumerate(messages) if message.role != "system"), len(messages))
    begins = [index for index in range(head + 1, len(messages)) if messages[index].role == "user"]
    first = next((index for index in (head, *begins) if sum(sizes[:head]) + sum(sizes[index:]) <= length), None)
    if first is None:
        first = begins[-1] if begins else head
    return [*encoded[:head], *encoded[first:]]


def _weighted(messages: Sequence[Message], encoded: Encoded) -> Encoded:
    """The same with no target in a message of weight 0."""
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
    lengths, names = {}, {file["name"] for file in index["files"]}
    for side in SIDES:
        rows, *_ = (counted(index["sides"][side][key]) for key in ("rows", "conversations", "tokens", "targets"))
        numbers = rows * counted(index["length"])
        for array, dtype in zip(_ARRAYS, _dtypes(index), strict=True):
            lengths[_file_name(side, array)] = numbers * np.dtype(dtype).itemsize
    if not index["length"] or names != {*lengths, HELDOUT_CONVERSATIONS}:
        raise ValueError(f"rows of {index['length']} tokens in {len(names)} files")
    return lengths


def _dtypes(index: dict[str, Any]) -> tuple[str, str, str]:
    return index["dtype"], "uint8", "uint16"


def _file_name(side: str, array: str) -> str:
    return f"{side}-{array}.bin"


def _line(conversation: Conversation) -> str:
    messages = [
        {"role": message.role, "content": message.content} | ({} if message.weight else {"weight": 0})
        for message in conversation.messages
    ]
    return json.dumps({"id": conversation.id, "messages": messages}) + "\n"
