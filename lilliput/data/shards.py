"""Token files: a corpus, encoded once, as flat arrays of ids on disk.

A folder holds `train-00000.bin`, ..., `heldout-00000.bin`, ..., the held-out texts and the index, in the layout of
`token_files.py`. The files of one side, joined, are one stream of documents, each of them the end token and then its
tokens; which one that is, depends on the tokenizer, and the index has its id. `train-pieces.bin` (uint64) says where in
the stream of the train side its pieces begin, which training reads in another order in each pass.
"""

import json
import math
from array import array
from collections.abc import Callable, Iterator
from copy import copy
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer

from lilliput.base.errors import DataError
from lilliput.base.files import hash_of
from lilliput.base.hash_cache import HashCache
from lilliput.base.spec import to_plain
from lilliput.data.batch import Batch, document_ids_of
from lilliput.data.documents import Corpus, Document
from lilliput.data.dropped import DROPPED, Dropped, Sample, is_sampled
from lilliput.data.encoding_queue import EncodedText, EncodingQueue
from lilliput.data.partial_shards import PROGRESS, PartialShards
from lilliput.data.pieces import PIECES, POSITION, write_pieces
from lilliput.data.readers.rows import read_back, shown
from lilliput.data.resumable import Item, Offset, fraction_read, is_seekable, iterate_from
from lilliput.data.shard_writer import CorpusProgress, Position, ShardWriter, other_corpus
from lilliput.data.soft_targets import SoftTargetFile
from lilliput.data.split import HeldOut
from lilliput.data.token_files import (
    SIDES,
    Side,
    counted,
    header,
    in_bytes,
    new_index,
    open_index,
    seal_index,
)
from lilliput.data.token_stream import TokenStream
from lilliput.data.tokenization_progress import Throughput, TokenizationProgress
from lilliput.tokenizer.bpe import END
from lilliput.tokenizer.specials import literal

HELDOUT_TEXTS = "heldout.txt.jsonl"
SHARD_TOKENS = 100_000_000
"""Tokens of a file: some 200 MB, and a minute or two of encoding, which is what a kill costs."""

_SLICE = 1 << 16
"""Characters of a held-out text, or ids of a text, that become bytes of a file at a time."""


class Encoded(NamedTuple):
    """Result of tokenizing a corpus."""

    index: dict[str, Any]
    """`tokenizer`, `vocab`, `end`, `dtype`; `files` with tokens and documents of each; `sides` with tokens, documents
    and UTF-8 bytes of the texts of each; `sha256` over all of it."""
    text: str
    """`TextHash` of the documents."""
    dropped: dict[str, int]
    """Number of documents dropped by filters, by reason."""


def write_shards(
    corpus: Corpus,
    tokenizer: Tokenizer,
    split: HeldOut,
    folder: Path,
    shard_tokens: int = SHARD_TOKENS,
    progress: Callable[[TokenizationProgress], None] = lambda encoding: None,
    end: str = END,
    inputs: Any = None,
    processes: int = 1,
) -> Encoded:
    """Encode a corpus into a folder, which appears whole or not at all; documents keep their order on each side.

    Args:
        corpus: the documents.
        tokenizer: 16-bit ids are written while all of its ids fit.
        split: decides by a document's group which side it lands on.
        folder: is replaced if it is there.
        shard_tokens: a file is closed after the document that brings it to this many tokens.
        progress: told how far it is, when it begins and after every batch of documents.
        end: the tokenizer's token that ends documents; what else the tokenizer puts before or after a text, stays.
        inputs: JSON value that decides, with the other arguments, what the documents are. Given one, closed files
            outlive a kill, and the same call goes on from the first document that is in none; without, it begins again.
        processes: that encode, once there is enough to do; the files are the same with any number.

    Raises:
        DataError: no document is left to train on, one is not text, or the corpus is not what it was before a kill.
    """
    index = new_index("documents", tokenizer, end)
    code = np.dtype(index["dtype"]).char
    key = None if inputs is None else hash_of([inputs, index, to_plain(split), shard_tokens])
    with PartialShards(folder, key) as partial:
        writers = _Writers(partial.path, index, split, shard_tokens)
        start = partial.open(writers.by_name)
        reached = CorpusProgress(start if is_seekable(corpus) else Position())
        items = _items(corpus, reached.mark, partial.path)
        clock = Throughput(corpus, partial.kept.items, partial.closed, tuple(partial.damaged), progress)
        clock.update(reached.items, reached.mark)
        with EncodingQueue(literal(tokenizer), f"the corpus of {folder.name}", code, processes) as queue:
            for item, mark, encoded in queue.encode(items, writers.waiting_side, reached.items):
                if isinstance(item, Dropped):
                    writers.add_dropped(reached, item)
                closed = not isinstance(item, str) and writers.add(reached, item, encoded)
                reached.step(item, mark)
                if reached.items == partial.kept.items:
                    partial.compare(reached)
                if closed:
                    partial.commit(reached)
                clock.step(reached.items, reached.mark, encoded and encoded.size)
                del item, encoded  # a long text is not to be kept while the next one is read
        clock.update(reached.items, reached.mark)
        if reached.items < partial.kept.items:
            partial.compare(reached)
        writers.close(reached)
        index["files"], index["sides"] = writers.files(), writers.totals()
        index["pieces"] = write_pieces(partial.path, index)
        index["files"].append({"name": PIECES})
        final = reached.position()
        if sum(side["documents"] for side in index["sides"].values()) + sum(final.dropped.values()) != final.items:
            raise other_corpus(partial.path)
        if not index["sides"]["train"]["documents"]:
            raise DataError(
                "no document is left to train on",
                where=f"the corpus of {folder.name}: {reached.items:,} documents, all of them held out or dropped",
                hint="check the corpus and its filters, or hold out a smaller share",
            )
        index = seal_index(partial.path, index)
        partial.finish()
    return Encoded(index, final.text, dict(final.dropped))


class Shards:
    """A folder that `write_shards` wrote, verified and open for reading.

    Args:
        folder: the folder.
        tokenizer_hash: the tokenizer that the ids must be of; None accepts any.
        verified: knows which files need not be hashed again.

    Raises:
        DataError: a file is missing or differs from the index, or the ids are of another tokenizer.
    """

    def __init__(self, folder: Path, tokenizer_hash: str | None = None, verified: HashCache | None = None):
        self.folder = folder
        self._token_folder = open_index(folder, "documents", tokenizer_hash, verified, _lengths)
        self.index = self._token_folder.index
        self.end: int = self.index["end"]
        self.tokenizer: Tokenizer | None = None
        """Whose ids these are, where whoever opened them has told."""
        self.soft_targets: SoftTargetFile | None = None
        """A teacher's predictions for the train side, where a computation has made them."""

    def with_soft_targets(self, file: SoftTargetFile) -> "Shards":
        """Return the same files with a teacher's predictions."""
        other = copy(self)
        other.soft_targets = file
        return other

    def stream(self, side: Side) -> TokenStream:
        """The tokens of one side.

        Raises:
            DataError: the side is empty.
        """
        names = [file["name"] for file in self.index["files"] if file.get("side") == side and file["tokens"]]
        if not names:
            raise DataError(
                f"no document is on the {side} side",
                where=str(self.folder),
                hint="hold out a larger share: a few groups can all land on one side",
            )
        parts = [self._token_folder.numbers(name, self.index["dtype"], self.index["vocab"]) for name in names]
        tokens = sum(map(len, parts))
        begins = self._token_folder.numbers(PIECES, POSITION, tokens) if side == "train" else None
        return TokenStream(parts, self.end, begins)

    def rows(self, side: Side, length: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Every token but the first exactly once as a target, in order.

        Row r holds the tokens [r * length, r * length + length]; what is beyond is the end token at weight 0.

        Yields:
            Tokens [length + 1] int64 and weights [length + 1] float32; the first token, no target here, weighs 0.
        """
        stream = self.stream(side)
        for start in range(0, len(stream) - 1, length):
            count = min(length + 1, len(stream) - start)
            tokens = np.full(length + 1, self.end, dtype=np.int64)
            weight = np.zeros(length + 1, dtype=np.float32)
            tokens[:count] = stream.read(start, count)
            weight[1:count] = 1
            yield tokens, weight

    @property
    def heldout_size(self) -> int:
        """UTF-8 bytes of the texts that are held out."""
        return self.index["sides"]["heldout"]["bytes"]

    def heldout_batches(self, length: int, positions: int, rows: Callable[[int], int]) -> Iterator[Batch]:
        """The first held-out rows of `length` tokens and their targets; see `TokenFiles`."""
        first, size = islice(self.rows("heldout", length), max(1, positions // length)), rows(length)
        while part := list(islice(first, size)):
            tokens, weight = (np.stack(each) for each in zip(*part, strict=True))
            yield Batch(
                tokens=torch.from_numpy(tokens),
                weight=torch.from_numpy(weight),
                document_ids=torch.from_numpy(document_ids_of(tokens, self.end)),
            )

    def heldout_loss(self, total: float, targets: float) -> float:
        """Bits per byte, in proportion where not all bytes are measured."""
        side = self.index["sides"]["heldout"]
        # The first token of the stream has nothing before it: no target.
        return total / math.log(2) / (side["bytes"] * targets / (side["tokens"] - 1))

    def heldout_texts(self) -> Iterator[tuple[str, str]]:
        """Id and text of every held-out document, in the order of their tokens."""
        for record in read_back(self.folder / HELDOUT_TEXTS):
            yield record.text("id"), record.text("text")


class _Writers:
    """Writers of a corpus's documents: into token files by side, those held out into the held-out texts too; and of
    samples of those that are dropped."""

    def __init__(self, folder: Path, index: dict[str, Any], split: HeldOut, shard_tokens: int):
        head = header(index["dtype"], index["tokenizer"])
        self._sides = {side: ShardWriter(folder, (side + "-{:05}.bin").format, head, shard_tokens) for side in SIDES}
        self._texts = ShardWriter(folder, lambda number: HELDOUT_TEXTS)
        self._dropped = ShardWriter(folder, lambda number: DROPPED)
        self._split, self._dtype, self._end = split, index["dtype"], index["end"]
        self._begin = in_bytes([self._end], self._dtype)

    @property
    def by_name(self) -> dict[str, ShardWriter]:
        return {**self._sides, "texts": self._texts, "dropped": self._dropped}

    def waiting_side(self, document: Document, index: int) -> Side | None:
        """Return the side that waits for the tokens of the document at an index of the corpus; None if it has them."""
        side = self._side(document)
        return side if self._sides[side].wants(index) else None

    def add(self, progress: CorpusProgress, document: Document, encoded: EncodedText | None) -> bool:
        """Write the document that comes next at `progress`, with its ids if its tokens are to be written.

        Returns:
            whether a token file was closed.
        """
        side, closed = encoded.side if encoded is not None else self._side(document), False
        if encoded is not None:
            data, count = self._numbers(encoded.ids)
            closed = self._sides[side].add(progress, data, count, encoded.size)
        if side == "heldout" and self._texts.wants(progress.items):
            self._texts.add(progress, _line(document))
        return closed

    def add_dropped(self, progress: CorpusProgress, item: Dropped) -> None:
        """Write the item that comes next at `progress`, which a filter drops, if it is one of the samples."""
        number = progress.dropped(item) + 1
        if is_sampled(number) and self._dropped.wants(progress.items):
            sample = Sample(reason=str(item), number=number, id=item.id, text=item.excerpt)
            self._dropped.add(progress, [sample.line()])

    def _numbers(self, ids: "array[int]") -> tuple[Iterator[bytes], int]:
        """Return what a token file has of a document, in slices, and how many tokens these are."""
        # A text cannot spell the end token; a tokenizer that adds it by itself would end the document twice.
        numbers = np.frombuffer(ids, dtype=self._dtype)
        slices = [numbers[start : start + _SLICE] for start in range(0, len(numbers), _SLICE)]
        slices = [some[some != self._end] if (some == self._end).any() else some for some in slices]
        return chain([self._begin], (in_bytes(some, self._dtype) for some in slices)), 1 + sum(map(len, slices))

    def close(self, progress: CorpusProgress) -> None:
        """Close all files; the held-out texts are there even if nothing is held out."""
        if not self._texts.shards:
            self._texts.begin(progress)
        for writer in self.by_name.values():
            writer.close()

    def files(self) -> list[dict[str, Any]]:
        """The files as an index names them."""
        numbers = [
            {"name": file.name, "side": side, "tokens": file.tokens, "documents": file.documents, "sha256": file.sha256}
            for side, writer in self._sides.items()
            for file in writer.shards
        ]
        return [*numbers, *({"name": file.name, "sha256": file.sha256} for file in self._texts.shards)]

    def totals(self) -> dict[str, dict[str, int]]:
        """Tokens, documents and bytes of text by side."""
        return {
            side: {
                "tokens": sum(file.tokens for file in writer.shards),
                "documents": sum(file.documents for file in writer.shards),
                "bytes": sum(file.text for file in writer.shards),
            }
            for side, writer in self._sides.items()
        }

    def _side(self, document: Document) -> Side:
        return "heldout" if self._split.is_heldout(document.group) else "train"


def _line(document: Document) -> Iterator[bytes]:
    """Yield a held-out text as JSON in slices: escapes take up to twelve bytes for one of the text."""
    yield json.dumps({"id": document.id, "text": ""}).encode()[:-2]
    for start in range(0, len(document.text), _SLICE):
        yield json.dumps(document.text[start : start + _SLICE])[1:-1].encode()
    yield b'"}\n'


def _items(corpus: Corpus, mark: Offset | None, partial: Path) -> Iterator[tuple[Item, Offset]]:
    """The items of a corpus, from a mark on that was kept.

    Raises:
        DataError: it is no mark of this corpus.
    """
    if mark is None:
        return iterate_from(corpus)
    try:
        fraction_read(corpus)(mark)
        items = iterate_from(corpus, mark)
        return chain(list(islice(items, 1)), items)
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise DataError(
            f"the corpus cannot be read from {shown(mark)} on",
            where=str(partial / PROGRESS),
            hint="remove that folder to tokenize everything again",
        ) from error


def _lengths(index: dict[str, Any]) -> dict[str, int]:
    """Bytes of the numbers of every token file by an index; see `open_index`."""
    files = [file for file in index["files"] if "side" in file]
    for side in SIDES:
        counts = {key: counted(index["sides"][side][key]) for key in ("tokens", "documents", "bytes")}
        for key in ("tokens", "documents"):
            if counts[key] != sum(counted(file[key]) for file in files if file["side"] == side):
                raise ValueError(f"the files of the {side} side have not its {counts[key]} {key}")
    if any(file["side"] not in SIDES for file in files):
        raise ValueError("a file is of no side")
    if (counted(index["pieces"]) == 0) != (index["sides"]["train"]["tokens"] == 0):
        raise ValueError(f"{index['pieces']} pieces")
    lengths = {file["name"]: file["tokens"] * np.dtype(index["dtype"]).itemsize for file in files}
    return lengths | {PIECES: index["pieces"] * np.dtype(POSITION).itemsize}
