"""The documents of token files, one after the other, and what is counted of them in one reading."""

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from lilliput.data.packed_rows import PackedRows
from lilliput.data.pair_rows import PackedPairs
from lilliput.data.shards import Shards
from lilliput.data.token_files import Side
from lilliput.tokenizer.chatml import MESSAGE_END, MESSAGE_START

READ = 1 << 20
"""Tokens that are read at a time."""
ROWS = 256
"""Packed rows that are."""
_MARKS = re.compile(rf"{re.escape(MESSAGE_START)}\w*\n?|{re.escape(MESSAGE_END)}")


def encoded_documents(files: Any, side: Side) -> Iterator[list[np.ndarray]]:
    """The documents of one side, some at a time, each as ids without end tokens; an answer of a pair is one, too.

    Args:
        files: token files of text, conversations or pairs; of other formats nothing is known, and nothing comes.
        side: which is not empty.
    """
    if isinstance(files, Shards):
        yield from _of_stream(files, side)
    elif isinstance(files, PackedRows):
        yield from _of_rows(files, side)


def encoded_items(files: Any, side: Side) -> Iterator[np.ndarray]:
    """The items of one side, one at a time, as `encoded_documents` has them; but both answers of a pair are one.

    Args:
        files: token files of text, conversations or pairs; of other formats nothing comes.
        side: which may be empty.
    """
    for some in encoded_documents(files, side) if files.index["sides"][side]["tokens"] else ():
        if isinstance(files, PackedPairs):
            yield from map(np.concatenate, zip(some[::2], some[1::2], strict=True))
        else:
            yield from (one for one in some if len(one))


def document_texts(documents: Sequence[np.ndarray], tokenizer: Tokenizer) -> list[str]:
    """The texts of documents; of conversations the contents of the messages, without the names of their roles.

    Args:
        documents: ids of each.
        tokenizer: that of the whole timeline, which has the tokens of conversations.
    """
    texts = tokenizer.decode_batch([one.tolist() for one in documents], skip_special_tokens=False)
    return [_MARKS.sub("", text) if MESSAGE_START in text else text for text in texts]


def _of_stream(shards: Shards, side: Side) -> Iterator[list[np.ndarray]]:
    left = np.zeros(0, dtype=np.int64)
    for block in shards.stream(side).blocks(READ):
        ids = np.concatenate([left, block])
        *whole, left = np.split(ids, np.flatnonzero(ids == shards.end))
        yield [part[part != shards.end] for part in whole]
    yield [left[left != shards.end]]


def _of_rows(rows: PackedRows, side: Side) -> Iterator[list[np.ndarray]]:
    for batch in rows.batches(side, ROWS):
        for ids, owners in zip(batch.tokens.numpy(), batch.document_ids.numpy(), strict=True):
            parts = np.split(ids, np.flatnonzero(np.diff(owners)) + 1)
            yield [part for part in parts if (part != rows.index["end"]).any()]


@dataclass(frozen=True, kw_only=True)
class DocumentCounts:
    """Counts of the documents of one side of a corpus, [documents] each, in their order; and of tokens."""

    lengths: np.ndarray
    """Tokens of each."""
    hashes: np.ndarray
    """64 bits of a hash of the ids of each: among a million that differ two seem equal with a chance of 3e-8."""
    occurrences: np.ndarray
    """Number of times that each id of the vocabulary occurs, [vocabulary]."""

    def are_in(self, others: "DocumentCounts") -> np.ndarray:
        """Return which documents others have, too, [documents] bool; `np.isin` takes three times the memory."""
        known = np.sort(others.hashes)
        if not len(known):
            return np.zeros(len(self.hashes), dtype=bool)
        return known[np.minimum(np.searchsorted(known, self.hashes), len(known) - 1)] == self.hashes


def count_documents(files: Any, side: Side) -> DocumentCounts:
    """Read one side of token files once; counts of nothing where it is empty."""
    lengths, hashes = array("q"), bytearray()  # 16 bytes a document; as objects they took ninety
    occurrences = np.zeros(files.index["vocab"], dtype=np.int64)
    is_empty = not files.index["sides"][side]["tokens"]
    for documents in () if is_empty else encoded_documents(files, side):
        documents = [one for one in documents if len(one)]
        if not documents:
            continue
        lengths.extend(map(len, documents))
        hashes += b"".join(blake2b(one.tobytes(), digest_size=8).digest() for one in documents)
        occurrences += np.bincount(np.concatenate(documents), minlength=len(occurrences))
    return DocumentCounts(
        lengths=np.frombuffer(lengths, dtype=np.int64),
        hashes=np.frombuffer(hashes, dtype=np.uint64),
        occurrences=occurrences,
    )
