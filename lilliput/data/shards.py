"""Token files: a corpus, encoded once, as flat arrays of ids on disk.

A folder holds `train-00000.bin`, ..., `heldout-00000.bin`, ..., the held-out texts and `index.json`, which has the
SHA-256 of every other file and of itself. A `.bin` file is a header of 64 bytes, then numbers, little-endian:

    bytes  0-7    magic, "LILLIPUT"
    bytes  8-11   format version, uint32
    bytes 12-15   bytes per number, uint32: 1, 2 or 4 for uint8, uint16, uint32
    bytes 16-47   SHA-256 of the tokenizer
    bytes 48-63   zero

The files of one side, joined, are one stream of documents, each of them the end token and then its tokens; which one
that is, depends on the tokenizer, and the index has its id.
"""

import json
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from tokenizers import Tokenizer

from lilliput.base.errors import DataError
from lilliput.base.files import hash_of, new_folder, read_json, sha256, write_json
from lilliput.data.documents import Corpus, Document
from lilliput.data.split import Split
from lilliput.tokenizer.bpe import END, END_ID, literal, tokenizer_hash
from lilliput.tokenizer.specials import id_of, vocabulary_size

Side = Literal["train", "heldout"]
SIDES: tuple[Side, Side] = ("train", "heldout")
HELDOUT_TEXTS = "heldout.txt.jsonl"
INDEX = "index.json"

_FORMAT = 1
_HEADER = struct.Struct("<8sII32s16x")
_MAGIC = b"LILLIPUT"
_BATCH_DOCUMENTS = 1_024
_BATCH_CHARACTERS = 4_000_000
_REWRITE = 'delete the folder and write it again with "lilliput run RECIPE"'


def write_shards(
    corpus: Corpus,
    tokenizer: Tokenizer,
    split: Split,
    folder: Path,
    shard_tokens: int = 100_000_000,
    progress: Callable[[int], None] | None = None,
    end: str = END,
) -> dict[str, Any]:
    """Encode a corpus into a folder, which appears whole or not at all; documents keep their order on each side.

    Args:
        corpus: the documents; their order is the order of training.
        tokenizer: 16-bit ids are written while all of its ids fit.
        split: decides by a document's group which side it lands on.
        folder: is replaced if it is there.
        shard_tokens: a file is closed after the document that brings it to this many tokens.
        progress: told how many documents are done.
        end: the tokenizer's token that ends documents; what else the tokenizer puts before or after a text, stays.

    Returns:
        The index: `tokenizer`, `vocab`, `end`, `dtype`; `files` with tokens and documents of each; `sides` with tokens,
        documents and UTF-8 bytes of the texts of each; `sha256` over all of it.

    Raises:
        DataError: no document is left to train on, or one is not text.
    """
    encoder = literal(tokenizer)
    index = new_index("documents", tokenizer, end)
    with new_folder(folder) as partial:
        with ExitStack() as stack:
            texts = stack.enter_context(open(partial / HELDOUT_TEXTS, "w", encoding="utf-8", newline="\n"))
            writers = {side: stack.enter_context(_Writer(side, partial, index, shard_tokens)) for side in SIDES}
            done = 0
            for batch in _batches(corpus.documents()):
                sizes = [_bytes_of(document) for document in batch]
                encodings = encoder.encode_batch_fast([document.text for document in batch])
                for document, size, encoding in zip(batch, sizes, encodings, strict=True):
                    side = "heldout" if split.is_heldout(document.group) else "train"
                    writers[side].add(encoding.ids, size)
                    if side == "heldout":
                        line = json.dumps({"id": document.id, "text": document.text})
                        texts.write(line + "\n")
                done += len(batch)
                if progress is not None:
                    progress(done)
        if not writers["train"].files:
            raise DataError(
                "no document is left to train on",
                where=f"the corpus of {folder.name}: {done:,} documents, all of them held out or none there",
                hint="check the corpus and its filters, or hold out a smaller share",
            )
        index["files"] = [file for side in SIDES for file in writers[side].files] + [{"name": HELDOUT_TEXTS}]
        index["sides"] = {side: writers[side].totals() for side in SIDES}
        return seal_index(partial, index)


class Stream:
    """The tokens of one side, end to end, as a circle; `end` begins each document."""

    def __init__(self, parts: list[np.ndarray], end: int):
        self.end = end
        self._parts = parts
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, start: int, count: int) -> np.ndarray:
        """`count` tokens from position `start` on, [count] int64; after the last token comes the first."""
        tokens = np.empty(count, dtype=np.int64)
        filled = 0
        while filled < count:
            position = (start + filled) % len(self)
            place = int(np.searchsorted(self._starts, position, side="right")) - 1
            first = position - int(self._starts[place])
            piece = self._parts[place][first : first + count - filled]
            tokens[filled : filled + len(piece)] = piece
            filled += len(piece)
        return tokens


class Shards:
    """A folder that `write_shards` wrote, verified and open for reading.

    Args:
        folder: the folder.
        tokenizer_hash: the tokenizer that the ids must be of; None accepts any.

    Raises:
        DataError: a file is missing or differs from the index, or the ids are of another tokenizer.
    """

    def __init__(self, folder: Path, tokenizer_hash: str | None = None):
        self.folder = folder
        self.index = open_index(folder, "documents", tokenizer_hash)
        self.end: int = self.index["end"]

    def stream(self, side: Side) -> Stream:
        """The tokens of one side.

        Raises:
            DataError: the side is empty.
        """
        names = [file["name"] for file in self.index["files"] if file.get("side") == side]
        if not names:
            raise DataError(
                f"the {side} side holds no document",
                where=str(self.folder),
                hint="hold out a larger share: few groups can all land on one side",
            )
        return Stream([open_numbers(self.folder / name, self.index["dtype"]) for name in names], self.end)

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

    def heldout_texts(self) -> Iterator[tuple[str, str]]:
        """Id and text of every held-out document, in the order of their tokens."""
        with open(self.folder / HELDOUT_TEXTS, encoding="utf-8", newline="\n") as file:
            for line in file:
                document = json.loads(line)
                yield document["id"], document["text"]


def new_index(kind: str, tokenizer: Tokenizer, end: str) -> dict[str, Any]:
    """The beginning of an index: what is stored, by which tokenizer, and which of its tokens ends documents."""
    vocab = vocabulary_size(tokenizer)
    return {
        "format": _FORMAT,
        "kind": kind,
        "tokenizer": tokenizer_hash(tokenizer),
        "vocab": vocab,
        "end": id_of(tokenizer, end, where="the token that ends documents"),
        "dtype": "uint16" if vocab <= 2**16 else "uint32",
    }


def seal_index(folder: Path, index: dict[str, Any]) -> dict[str, Any]:
    """Write `index.json` with the SHA-256 of each of its `files` and, last, of itself; returns it."""
    files = [file | {"sha256": sha256(folder / file["name"])} for file in index["files"]]
    index = index | {"files": files}
    index["sha256"] = hash_of(index)
    write_json(folder / INDEX, index)
    return index


def open_index(folder: Path, kind: str, tokenizer: str | None) -> dict[str, Any]:
    """Read `index.json` and compare every file with it.

    Raises:
        DataError: something is missing, damaged, of another kind or of another tokenizer than the hash given.
    """
    path = folder / INDEX
    try:
        index = read_json(path)
        whole = hash_of({key: value for key, value in index.items() if key != "sha256"}) == index["sha256"]
    except FileNotFoundError as error:
        raise DataError("there are no tokens", where=str(path), hint='write them with "lilliput run RECIPE"') from error
    except (ValueError, KeyError, AttributeError) as error:
        raise DataError(f"the index cannot be read ({error})", where=str(path), hint=_REWRITE) from error
    if not whole:
        raise DataError("the index differs from its own hash", where=str(path), hint=_REWRITE)
    if (index["format"], index["kind"]) != (_FORMAT, kind):
        raise DataError(
            f"the folder holds {index['kind']} in format {index['format']}, not {kind} in format {_FORMAT}",
            where=str(path),
            hint=_REWRITE,
        )
    if tokenizer not in (None, index["tokenizer"]):
        raise DataError(
            f"the ids are of the tokenizer {index['tokenizer']}, not of {tokenizer}",
            where=str(path),
            hint=f"{_REWRITE}, or use the tokenizer that wrote it",
        )
    for file in index["files"]:
        name = folder / file["name"]
        if not name.is_file():
            raise DataError(f"the file {file['name']} is missing", where=str(name), hint=_REWRITE)
        if sha256(name) != file["sha256"]:
            raise DataError(f"the file {file['name']} differs from the index", where=str(name), hint=_REWRITE)
    return {"end": END_ID} | index  # before there were other tokenizers than ours, no index had it


def write_header(file: BinaryIO, dtype: str, tokenizer: str) -> None:
    """Begin a `.bin` file of numbers of a dtype, by the tokenizer of a hash."""
    file.write(_HEADER.pack(_MAGIC, _FORMAT, np.dtype(dtype).itemsize, bytes.fromhex(tokenizer)))


def write_numbers(file: BinaryIO, numbers: Iterable[int] | np.ndarray, dtype: str) -> None:
    """Append numbers to a `.bin` file."""
    file.write(np.asarray(numbers, dtype=np.dtype(dtype).newbyteorder("<")).tobytes())


def open_numbers(path: Path, dtype: str) -> np.ndarray:
    """The numbers of a verified `.bin` file, [N], mapped into memory, read-only."""
    with open(path, "rb") as file:
        magic, version, size, _ = _HEADER.unpack(file.read(_HEADER.size))
    assert (magic, version, size) == (_MAGIC, _FORMAT, np.dtype(dtype).itemsize), f"{path} differs from its index"
    return np.memmap(path, dtype=np.dtype(dtype).newbyteorder("<"), mode="r", offset=_HEADER.size)


class _Writer:
    """The files of one side, opened one after another."""

    def __init__(self, side: Side, folder: Path, index: dict[str, Any], shard_tokens: int):
        self.files: list[dict[str, Any]] = []
        self.bytes = 0
        self._side, self._folder, self._index, self._shard_tokens = side, folder, index, shard_tokens
        self._file: BinaryIO | None = None

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def add(self, ids: list[int], size: int) -> None:
        """Append a document of `size` UTF-8 bytes."""
        if self._file is None:
            name = f"{self._side}-{len(self.files):05}.bin"
            self._file = open(self._folder / name, "wb")  # noqa: SIM115, the next file closes it
            write_header(self._file, self._index["dtype"], self._index["tokenizer"])
            self.files.append({"name": name, "side": self._side, "tokens": 0, "documents": 0})
        # A text cannot spell the end token; a tokenizer that adds it by itself would end the document twice.
        end = self._index["end"]
        tokens = [end, *ids] if end not in ids else [end, *(token for token in ids if token != end)]
        write_numbers(self._file, tokens, self._index["dtype"])
        self.files[-1]["tokens"] += len(tokens)
        self.files[-1]["documents"] += 1
        self.bytes += size
        if self.files[-1]["tokens"] >= self._shard_tokens:
            self._close()

    def totals(self) -> dict[str, int]:
        return {
            "tokens": sum(file["tokens"] for file in self.files),
            "documents": sum(file["documents"] for file in self.files),
            "bytes": self.bytes,
        }

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Enough documents at a time to keep every core busy, few enough to fit in memory."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if len(batch) == _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _bytes_of(document: Document) -> int:
    try:
        return len(document.text.encode())
    except UnicodeEncodeError as error:
        raise DataError(
            f"the text holds half a surrogate pair at place {error.start}, which is no text",
            where=f"the document {document.id!r}",
            hint="drop it with a filter, or repair its text",
        ) from error
