"""Token files that are hashed once: what a start trusts, what it finds, and what is found when a block is read."""

import os
from pathlib import Path

import numpy as np
import pytest
import tiny

from lilliput.base import hash_cache
from lilliput.base.errors import DataError
from lilliput.base.hash_cache import BLOCK, HashCache, digest
from lilliput.data.batch import Cursor
from lilliput.data.chat_rows import ChatData, PackedChats, write_chats
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.mixture import Mixture
from lilliput.data.pieces import PIECES, write_pieces
from lilliput.data.shards import HELDOUT_TEXTS, Shards
from lilliput.data.split import Split
from lilliput.data.token_files import header, in_bytes, seal_index
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.chatml import add_chatml


@pytest.fixture(autouse=True)
def long_ago(monkeypatch):
    """No file of these tests counts as changed just now, but where that is the question."""
    monkeypatch.setattr(hash_cache, "RECENT", -60.0)


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    """Names of the files that are hashed, as they are."""
    names = []

    def noting(path: Path, told):
        names.append(path.name)
        return digest(path, told)

    monkeypatch.setattr(hash_cache, "digest", noting)
    return names


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two token files of three and a bit, and of half a block."""
    folder, files, draw = tmp_path / "shards", [], np.random.default_rng(0)
    folder.mkdir()
    for index, size in enumerate((3 * BLOCK + 10, BLOCK // 2)):
        ids = draw.integers(1, 300, size=size // 2)
        ids[::50] = 0
        name = f"train-{index:05}.bin"
        (folder / name).write_bytes(header("uint16", "0" * 64) + in_bytes(ids, "uint16"))
        files.append({"name": name, "side": "train", "tokens": len(ids), "documents": 1})
    (folder / HELDOUT_TEXTS).write_text("{}\n")
    index = {"format": 2, "kind": "documents", "tokenizer": "0" * 64, "vocab": 300, "end": 0, "dtype": "uint16"}
    train = {"tokens": sum(file["tokens"] for file in files), "documents": 2, "bytes": 1}
    sides = {"train": train, "heldout": dict.fromkeys(train, 0)}
    index |= {"files": [*files, {"name": HELDOUT_TEXTS}], "sides": sides}
    index["pieces"] = write_pieces(folder, index)
    index["files"].append({"name": PIECES})
    seal_index(folder, index)
    return folder


def rot(folder: Path, name: str, offset: int, known: dict) -> dict:
    """Flip a bit as a failing disk does, after which the file's times are what they were: so the record is told."""
    data = bytearray((folder / name).read_bytes())
    data[offset] ^= 1
    (folder / name).write_bytes(data)
    about = (folder / name).stat()
    stamp = [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]
    (key,) = [key for key in known if key.endswith(name)]
    return known | {key: known[key] | {"stamp": stamp}}


def opened(folder: Path, known: dict | None = None) -> tuple[Shards, dict]:
    remembered = HashCache(folder, known)
    return Shards(folder, verified=remembered), remembered.plain()


def test_what_has_not_changed_is_hashed_once(folder, hashed) -> None:
    shards, known = opened(folder)
    assert hashed == ["train-00000.bin", "train-00001.bin", "train-pieces.bin"] and sorted(known) == hashed
    hashed.clear()
    again, same = opened(folder, known)
    assert hashed == [] and same == known and again.index == shards.index
    one, other = shards.stream("train"), again.stream("train")
    assert np.array_equal(one.read(0, len(one)), other.read(0, len(other)))


@pytest.mark.parametrize("change", ["touch", "rewrite", "replace", "set the time back"])
def test_whatever_changes_a_file_has_it_hashed_again(change, folder, hashed) -> None:
    _, known = opened(folder)
    hashed.clear()
    file = folder / "train-00001.bin"
    data, about = bytearray(file.read_bytes()), file.stat()
    data[-1] ^= 1
    match change:
        case "touch":
            file.touch()
        case "rewrite":
            file.write_bytes(data)
        case "replace":
            (folder / "other").write_bytes(file.read_bytes())
            os.replace(folder / "other", file)
            os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
        case "set the time back":
            file.write_bytes(data)
            os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    if change in ("touch", "replace"):
        _, known = opened(folder, known)
        assert hashed == ["train-00001.bin"]
        assert opened(folder, known) and hashed == ["train-00001.bin"], "and is known from then on"
    else:
        with pytest.raises(DataError, match=r"train-00001\.bin differs"):
            opened(folder, known)
        assert hashed == ["train-00001.bin"]


def test_every_file_that_differs_is_named(folder) -> None:
    for name in ("train-00000.bin", "train-00001.bin", HELDOUT_TEXTS):
        data = bytearray((folder / name).read_bytes())
        data[-2] ^= 1
        (folder / name).write_bytes(data)
    with pytest.raises(DataError, match=r"train-00000\.bin, train-00001\.bin, heldout\.txt\.jsonl differ from"):
        Shards(folder)


def test_a_file_changed_just_now_is_not_trusted_the_next_time(folder, hashed, monkeypatch) -> None:
    monkeypatch.setattr(hash_cache, "RECENT", 60.0)
    assert opened(folder)[1] == {}


def test_what_rots_is_found_when_its_block_is_read_and_only_then(folder) -> None:
    _, known = opened(folder)
    known = rot(folder, "train-00000.bin", BLOCK + 4_000, known)
    shards, _ = opened(folder, known)  # an ordinary start sees nothing
    stream = shards.stream("train")
    first = (BLOCK - 64) // 2
    stream.read(0, first)
    stream.read(2 * first + 64, 1_000)
    for start, count in ((first, 1), (first - 5, 10), (0, len(stream)), (2 * first, 64)):
        with pytest.raises(DataError, match=r"train-00000\.bin has changed since .* block 1 of 4 \(bytes 1,048,576"):
            stream.read(start, count)
    reader = Mixture(weights={"a": 1.0}).open({"a": shards})
    with pytest.raises(DataError, match="block 1 of 4"):
        reader.read(Cursor(), rows=30_000, length=32)
    with pytest.raises(DataError, match=r"train-00000\.bin differs from the index"):
        opened(folder)


def test_every_number_of_a_file_lies_in_a_block_that_was_compared(folder) -> None:
    """A flip at any place is found by whoever reads the number at that place, whatever was read before."""
    _, known = opened(folder)
    size = (folder / "train-00000.bin").stat().st_size
    for offset in (64, BLOCK - 1, BLOCK, 2 * BLOCK + 7, 3 * BLOCK - 1, 3 * BLOCK, size - 1):
        bad = rot(folder, "train-00000.bin", offset, known)
        stream = opened(folder, bad)[0].stream("train")
        for start in (0, BLOCK // 2, BLOCK, 3 * BLOCK // 2):
            if start // (BLOCK // 2) != offset // BLOCK:
                stream.read(start + 100, 50)
        with pytest.raises(DataError, match="has changed since"):
            stream.read((offset - 64) // 2, 1)
        known = rot(folder, "train-00000.bin", offset, bad)


def test_conversations_are_compared_too(tmp_path) -> None:
    _, chats = tiny.write_corpora(tmp_path)
    tokenizer = add_chatml(BPE(vocab=290).train(tiny.sentences(n) for n in range(100)))
    write_chats(ChatFiles(paths=(str(chats),)), tokenizer, Split(share=0.1), tmp_path / "rows", 128)
    remembered = HashCache(tmp_path / "rows")
    good = PackedChats(tmp_path / "rows", verified=remembered)
    for array in ("tokens", "weight", "document_ids"):
        known = rot(tmp_path / "rows", f"train-{array}.bin", 70, remembered.plain())
        bad = PackedChats(tmp_path / "rows", verified=HashCache(tmp_path / "rows", known))
        bad.take("heldout", [0])
        with pytest.raises(DataError, match=f"train-{array}.bin has changed since"):
            ChatData(corpus="chats").open({"chats": bad}).read(Cursor(), rows=2, length=128)
        rot(tmp_path / "rows", f"train-{array}.bin", 70, known)
    assert good.take("train", [0]).tokens.shape == (1, 128)
