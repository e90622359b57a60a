"""Token folders: files of numbers, and the index that has a hash of each.

A `.bin` file is a header of 64 bytes, then numbers, little-endian:

    bytes  0-7    magic, "LILLIPUT"
    bytes  8-11   format version, uint32
    bytes 12-15   bytes per number, uint32: 1, 2, 4 or 8 for uint8 to uint64
    bytes 16-47   SHA-256 of the tokenizer
    bytes 48-63   zero

`index.json` has the SHA-256 of every other file and of itself.
"""

import mmap
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from zlib import crc32

import numpy as np
from tokenizers import Tokenizer

from lilliput.base.errors import DataError
from lilliput.base.files import hash_of, read_json, sha256, write_json
from lilliput.base.hash_cache import BLOCK, HashCache, Sums
from lilliput.base.limits import plain_name
from lilliput.data.readers.rows import shown
from lilliput.tokenizer.bpe import END_ID, tokenizer_hash
from lilliput.tokenizer.specials import id_of, vocabulary_size

Side = Literal["train", "heldout"]
SIDES: tuple[Side, Side] = ("train", "heldout")
INDEX = "index.json"

_FORMAT = 2
_HEADER = struct.Struct("<8sII32s16x")
_MAGIC = b"LILLIPUT"
REWRITE = 'delete the folder and write it again with "lilliput run RECIPE"'


class TokenFolder(NamedTuple):
    """A folder of token files that are what its index says."""

    folder: Path
    index: dict[str, Any]
    sums: dict[str, Sums]
    """Checksums of the blocks of each `.bin` file, by its name."""

    def numbers(self, name: str, dtype: str, below: int) -> "TokenArray":
        """The numbers of a `.bin` file, all of them below a limit."""
        return TokenArray(self.folder / name, dtype, self.sums[name], below)


class TokenArray:
    """The numbers of a `.bin` file, [N], mapped into memory; of each block the first reading compares its checksum.

    Args:
        path: the file.
        dtype: of its numbers.
        sums: of its blocks.
        below: every number is; a larger one would lead beyond the end of an embedding.

    Raises:
        DataError: the file holds other numbers.
    """

    def __init__(self, path: Path, dtype: str, sums: Sums, below: int):
        self.path, self._sums, self._below = path, sums, below
        with open(path, "rb") as file:
            magic, version, self._size, _ = _HEADER.unpack(file.read(_HEADER.size))
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if (magic, version, self._size) != (_MAGIC, _FORMAT, np.dtype(dtype).itemsize):
            raise DataError(f"the file {path.name} holds no numbers of {dtype}", where=str(path), hint=REWRITE)
        self._bytes = np.frombuffer(self._map, dtype=np.uint8)
        self._numbers = self._bytes[_HEADER.size :].view(np.dtype(dtype).newbyteorder("<"))
        self._waiting = set(range(len(sums)))
        self._first = self._after = 0  # numbers between these lie in blocks that were compared

    def __len__(self) -> int:
        return len(self._numbers)

    def read(self, first: int, after: int) -> np.ndarray:
        """The numbers from `first` to before `after`, a view.

        Raises:
            DataError: a block of them differs from its checksum, or holds a number that is too large.
        """
        if first < self._first or after > self._after:
            self._compare(first, after)
        return self._numbers[first:after]

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The numbers at these indices, [N].

        Raises:
            DataError: a block of one of them differs from its checksum, or holds a number that is too large.
        """
        if self._waiting:
            blocks = (_HEADER.size + indices.astype(np.int64) * self._size) // BLOCK
            for block in set(blocks[np.flatnonzero(np.diff(blocks, prepend=-1))].tolist()) & self._waiting:
                self._compare_block(block)
                self._waiting.discard(block)
        return self._numbers[indices]

    def rows(self, indices: Sequence[int] | np.ndarray, length: int) -> np.ndarray:
        """Return those of the file's rows of `length` numbers that are at these indices, [rows, length].

        Raises:
            DataError: a block of them differs from its checksum, or holds a number that is too large.
        """
        for index in indices:
            self.read(int(index) * length, (int(index) + 1) * length)
        return self._numbers.reshape(-1, length)[np.asarray(indices)]

    def release_pages(self) -> None:
        """Let go of the pages that were read, which else count as memory of the process until the file is closed."""
        if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            self._map.madvise(mmap.MADV_DONTNEED)

    def _compare(self, first: int, after: int) -> None:
        block = (_HEADER.size + first * self._size) // BLOCK
        end = -(-(_HEADER.size + after * self._size) // BLOCK)
        for index in range(block, min(end, len(self._sums))):
            if index in self._waiting:
                self._compare_block(index)
                self._waiting.discard(index)
        if not self._waiting:
            self._first, self._after = 0, len(self)
            return
        self._first = max(0, (block * BLOCK - _HEADER.size) // self._size)
        self._after = (end * BLOCK - _HEADER.size) // self._size

    def _compare_block(self, index: int) -> None:
        first, after = index * BLOCK, (index + 1) * BLOCK
        if crc32(self._bytes[first:after].data) != self._sums[index]:
            raise DataError(
                f"the file {self.path.name} has changed since it was verified, in its block {index:,} of "
                f"{len(self._sums):,} (bytes {first:,} and on): the disk or memory is failing",
                where=str(self.path),
                hint=f"nothing of that block was read; {REWRITE}",
            )
        numbers = self._numbers[max(0, first - _HEADER.size) // self._size : (after - _HEADER.size) // self._size]
        if len(numbers) and numbers.max() >= self._below:
            raise DataError(
                f"the file {self.path.name} holds the number {numbers.max():,}, but only numbers below {self._below:,} "
                "are valid",
                where=str(self.path),
                hint=REWRITE,
            )


def new_index(kind: str, tokenizer: Tokenizer, end: str) -> dict[str, Any]:
    """The beginning of an index: what is stored, by which tokenizer, and which of its tokens ends documents."""
    vocab = vocabulary_size(tokenizer)
    return {
        "format": _FORMAT,
        "kind": kind,
        "tokenizer": tokenizer_hash(tokenizer),
        "vocab": vocab,
        "end": id_of(tokenizer, end, where="the token that ends documents"),
        "dtype": _dtype(vocab),
    }


def seal_index(folder: Path, index: dict[str, Any]) -> dict[str, Any]:
    """Write `index.json` with the SHA-256 of each of its `files`, computed where it is not there yet, and of itself."""
    files = [file if "sha256" in file else file | {"sha256": sha256(folder / file["name"])} for file in index["files"]]
    index = index | {"files": files}
    index["sha256"] = hash_of(index)
    write_json(folder / INDEX, index)
    return index


def open_index(
    folder: Path, kind: str, tokenizer: str | None, verified: HashCache | None, lengths: Callable[[Any], dict[str, int]]
) -> TokenFolder:
    """Read `index.json` and compare every file with it.

    Args:
        folder: of token files.
        kind: what it should hold.
        tokenizer: the hash of the tokenizer that it should be of; None accepts any.
        verified: knows which `.bin` files need not be hashed again; all others are, because others read them too.
        lengths: bytes of the numbers of every `.bin` file by an index, or a ValueError and the like of one that no
            folder of this kind has.

    Raises:
        DataError: something is missing, damaged, of another kind or of another tokenizer.
    """
    path = folder / INDEX
    index = _read(path)
    if (index["format"], index["kind"]) != (_FORMAT, kind):
        raise DataError(
            f"the folder holds {shown(index['kind'])} in format {shown(index['format'])}, not {kind!r} in {_FORMAT}",
            where=str(path),
            hint=REWRITE,
        )
    try:
        _check(index)
        expected = lengths(index)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"the index has impossible values ({error!r:.120})", where=str(path), hint=REWRITE) from error
    if tokenizer not in (None, index["tokenizer"]):
        raise DataError(
            f"the token ids are of the tokenizer {index['tokenizer']}, not of {tokenizer}",
            where=str(path),
            hint=f"{REWRITE}, or use the tokenizer that wrote it",
        )
    hashes = {folder / file["name"]: file["sha256"] for file in index["files"]}
    for name in hashes:
        if not name.is_file():
            raise DataError(f"the file {name.name} is missing", where=str(name), hint=REWRITE)
    wrong = [folder / name for name, size in expected.items() if (folder / name).stat().st_size != _HEADER.size + size]
    numbers = {folder / name: hashes[folder / name] for name in expected if folder / name not in wrong}
    sums, differing = (verified or HashCache(folder)).check(numbers)
    differing += wrong
    differing += [name for name, hashed in hashes.items() if name.name not in expected and sha256(name) != hashed]
    if differing:
        names = ", ".join(name.name for name in differing)
        what = f"the file {names} differs" if len(differing) == 1 else f"the files {names} differ"
        raise DataError(f"{what} from the index", where=str(differing[0]), hint=REWRITE)
    return TokenFolder(folder, index, {name.name: known for name, known in sums.items()})


def _read(path: Path) -> dict[str, Any]:
    """An index that is what its own hash says."""
    try:
        index = read_json(path)
        is_intact = hash_of({key: value for key, value in index.items() if key != "sha256"}) == index["sha256"]
    except FileNotFoundError as error:
        raise DataError("there are no tokens", where=str(path), hint='write them with "lilliput run RECIPE"') from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"the index cannot be read ({error})", where=str(path), hint=REWRITE) from error
    if not is_intact:
        raise DataError("the index differs from its own hash", where=str(path), hint=REWRITE)
    # Before there were other tokenizers than ours, no index had the end token.
    return {"format": None, "kind": None, "end": END_ID} | index


def _check(index: dict[str, Any]) -> None:
    """Raise a ValueError, or what odd values lead to, where an index says what no folder of token files has."""
    vocab = counted(index["vocab"])
    if counted(index["end"]) >= vocab or index["dtype"] != _dtype(vocab):
        raise ValueError(f"ids of type {index['dtype']!r:.20} below {vocab}, of which {index['end']} ends documents")
    names = [plain_name(file["name"], where=INDEX) for file in index["files"]]
    if len({INDEX, *names}) <= len(names):
        raise ValueError("a file is there twice")
    for text in (index["tokenizer"], *(file["sha256"] for file in index["files"])):
        if not re.fullmatch("[0-9a-f]{64}", text):
            raise ValueError(f"{text!r:.80} is no SHA-256")


def counted(value: Any) -> int:
    """A number of things in an index.

    Raises:
        ValueError: it is no whole number from 0 on.
    """
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r:.40} things")
    return value


def header(dtype: str, tokenizer: str) -> bytes:
    """The beginning of a `.bin` file of numbers of a dtype, by the tokenizer of a hash."""
    return _HEADER.pack(_MAGIC, _FORMAT, np.dtype(dtype).itemsize, bytes.fromhex(tokenizer))


def in_bytes(numbers: Iterable[int] | np.ndarray, dtype: str) -> bytes:
    """Numbers as a `.bin` file has them."""
    return np.asarray(numbers, dtype=np.dtype(dtype).newbyteorder("<")).tobytes()


def _dtype(vocab: int) -> str:
    return "uint16" if vocab <= 2**16 else "uint32"
