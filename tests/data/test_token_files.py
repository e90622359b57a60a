"""Token files of strangers: an index, a record of what is encoded and one of what is hashed that say odd things."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny
from rich.console import Console
from tokenizers import Tokenizer

from lilliput.base.errors import DataError, LilliputError
from lilliput.base.files import hash_of, read_json, with_checksum, write_json
from lilliput.base.run_folder import RunFolder
from lilliput.data.batch import Cursor
from lilliput.data.chat_rows import HELDOUT_CONVERSATIONS, PackedChats, write_chats
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.data.corpora.files import TextFiles
from lilliput.data.mixture import Mixture
from lilliput.data.partial_shards import PROGRESS
from lilliput.data.pieces import PIECES, write_pieces
from lilliput.data.shards import HELDOUT_TEXTS, Shards, write_shards
from lilliput.data.split import Split
from lilliput.data.token_files import INDEX, header, in_bytes, seal_index
from lilliput.data.tokenization_progress import TokenizationProgress
from lilliput.run.verified_token_files import VERIFIED, TokenFileOpener
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.chatml import add_chatml

SPLIT = Split(share=0.2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of documents and one of conversations, and what they are made of."""
    folder = tmp_path_factory.mktemp("made")
    texts, chats = tiny.write_corpora(folder)
    tokenizer = add_chatml(BPE(vocab=290).train(tiny.sentences(n) for n in range(100)))
    write_shards(TextFiles(paths=(str(texts),)), tokenizer, SPLIT, folder / "documents", shard_tokens=5_000)
    write_chats(ChatFiles(paths=(str(chats),)), tokenizer, SPLIT, folder / "conversations", 128)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"


def opened(folder: Path) -> Shards | PackedChats:
    return Shards(folder) if folder.name == "documents" else PackedChats(folder)


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change an index as somebody does who knows what its hash is for."""
    index = read_json(folder / INDEX)
    del index["sha256"]
    change(index)
    seal_index(folder, index)


ODD: list[Any] = [None, True, -1, 1.5, 2**70, "x", "../x", "/etc/passwd", [], [[]], {}, {"a": 1}, ["train-00000.bin"]]
PATHS: list[tuple[str | int, ...]] = [
    *((key,) for key in ("format", "kind", "tokenizer", "vocab", "end", "dtype", "files", "sides", "length")),
    *(("files", 0), ("files", 0, "name"), ("files", 0, "sha256"), ("files", 0, "side"), ("files", 0, "tokens")),
    *(("files", 0, "documents"), ("files", 1), ("files", 1, "name"), ("sides", "train"), ("sides", "heldout")),
    *(("sides", "train", key) for key in ("tokens", "documents", "bytes", "rows", "conversations")),
]
HARMLESS = {
    "documents": {("end",), ("sides", "train", "bytes")},
    "conversations": {("end",), ("sides", "train", "conversations"), ("sides", "train", "tokens")},
}
"""What nothing in the files can be compared with."""


@pytest.mark.parametrize("kind", ["documents", "conversations"])
def test_an_index_that_says_odd_things_is_refused_or_harmless(kind: str, folder: Path) -> None:
    """Each value of it replaced by each of many others: what opens, opens with the numbers that are there."""
    place = folder / kind
    good, size = read_json(place / INDEX), len(opened(place).index["files"])
    for path in PATHS:
        for value in [*ODD, "gone"]:
            index = json.loads(json.dumps({key: part for key, part in good.items() if key != "sha256"}))
            inner = _at(index, path[:-1])
            if isinstance(inner, dict) and path[-1] not in inner:
                continue
            if value == "gone":
                del inner[path[-1]]
            else:
                inner[path[-1]] = value
            try:
                write_json(place / INDEX, index | {"sha256": hash_of(index)})
                found = opened(place)
            except LilliputError as error:
                assert error.where and error.hint and len(str(error)) < 1_000
                continue
            assert len(found.index["files"]) <= size
            harmless = path in HARMLESS[kind] and (value == "gone" or (type(value) is int and value >= 0))
            assert harmless or value == _at(good, path), (path, value)


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def test_numbers_are_those_that_the_file_has_room_for(folder: Path) -> None:
    place = folder / "documents"

    def longer(index: dict[str, Any]) -> None:
        index["files"][0]["tokens"] += 10**12
        index["sides"]["train"]["tokens"] += 10**12

    changed(place, longer)
    with pytest.raises(DataError, match=r"train-00000\.bin differs from the index"):
        Shards(place)
    changed(folder / "conversations", lambda index: index.update(length=10**15))
    with pytest.raises(DataError, match="differ from the index"):
        PackedChats(folder / "conversations")


def test_ids_that_no_embedding_has_are_found_when_they_are_read(tmp_path: Path) -> None:
    for name, ids in (("good", [0, 299, 7]), ("bad", [0, 300, 7])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train-00000.bin").write_bytes(header("uint16", "0" * 64) + in_bytes(ids, "uint16"))
        (tmp_path / name / HELDOUT_TEXTS).write_text("")
        counts = {"tokens": 3, "documents": 1}
        files = [{"name": "train-00000.bin", "side": "train"} | counts, {"name": HELDOUT_TEXTS}]
        sides = {"train": counts | {"bytes": 3}, "heldout": {"tokens": 0, "documents": 0, "bytes": 0}}
        index = {"format": 2, "kind": "documents", "tokenizer": "0" * 64, "vocab": 300, "end": 0, "dtype": "uint16"}
        index |= {"files": files, "sides": sides}
        index["pieces"] = write_pieces(tmp_path / name, index)
        seal_index(tmp_path / name, index | {"files": [*files, {"name": PIECES}]})
    assert Shards(tmp_path / "good").stream("train").read(0, 3).tolist() == [0, 299, 7]
    with pytest.raises(DataError, match="the number 300, but only numbers below 300"):
        Shards(tmp_path / "bad").stream("train").read(0, 3)
    (tmp_path / "good" / "train-00000.bin").write_bytes(header("uint32", "0" * 64) + in_bytes([1, 2, 3], "uint16"))
    changed(tmp_path / "good", lambda index: index["files"][0].pop("sha256"))
    with pytest.raises(DataError, match="holds no numbers of uint16"):
        Shards(tmp_path / "good").stream("train")
    (tmp_path / "good" / "train-00000.bin").write_bytes(header("uint16", "0" * 64) + in_bytes([1, 2, 3], "uint16"))
    changed(tmp_path / "good", lambda index: index["files"][0].pop("sha256"))
    for begins in ([1], [0, 0], [0, 2, 1]):
        (tmp_path / "good" / PIECES).write_bytes(header("uint64", "0" * 64) + in_bytes(begins, "uint64"))

        def other(index: dict[str, Any], count: int = len(begins)) -> None:
            index["pieces"] = count
            index["files"][-1].pop("sha256")

        changed(tmp_path / "good", other)
        reader = Mixture(weights={"a": 1.0}).open({"a": Shards(tmp_path / "good")})
        with pytest.raises(DataError, match="pieces of 3 tokens are not contiguous"):
            reader.read(Cursor(), 2, 3)


@pytest.mark.parametrize("line", ["", "{", "[]", '{"id": "a"}', '{"id": 1, "text": "a"}', '{"id": "a", "text": null}'])
def test_held_out_texts_that_are_none_are_named(line: str, folder: Path) -> None:
    for kind, name in (("documents", HELDOUT_TEXTS), ("conversations", HELDOUT_CONVERSATIONS)):
        found = opened(folder / kind)
        with open(folder / kind / name, "a") as file:
            file.write(line + "\n")
        texts = found.heldout_texts() if isinstance(found, Shards) else found.heldout_conversations()
        if line:
            with pytest.raises(DataError) as raised:
                list(texts)
            assert f"{folder / kind / name}, record" in raised.value.where


@dataclass(frozen=True, kw_only=True)
class Interrupted:
    """Texts of which some are encoded, and what all of them become."""

    corpus: TextFiles
    tokenizer: Tokenizer
    made: dict[str, Any]
    folder: Path
    """Of token files; it is not there yet."""

    @property
    def path(self) -> Path:
        """The folder of what was interrupted."""
        return next(self.folder.parent.glob("folder.begun-*"))

    @property
    def record(self) -> dict[str, Any]:
        return {key: value for key, value in read_json(self.path / PROGRESS).items() if key != "sha256"}

    def go_on(self, told: Callable[[TokenizationProgress], None] = lambda encoding: None) -> dict[str, Any]:
        how = {"shard_tokens": 700, "progress": told, "inputs": "these"}
        return write_shards(self.corpus, self.tokenizer, SPLIT, self.folder, **how).index


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Interrupted:
    monkeypatch.setattr("lilliput.data.tokenization_progress._DOCUMENTS", 10)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"id": f"{n}", "text": tiny.sentences(n)}) + "\n" for n in range(30)))
    corpus, tokenizer = TextFiles(paths=(str(rows),)), BPE(vocab=290).train(tiny.sentences(n) for n in range(100))
    made = write_shards(corpus, tokenizer, SPLIT, tmp_path / "straight", shard_tokens=700).index
    found = Interrupted(corpus=corpus, tokenizer=tokenizer, made=made, folder=tmp_path / "folder")

    def stop(encoding: TokenizationProgress) -> None:
        if encoding.documents == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        found.go_on(stop)
    assert len(list(found.path.glob("train-*.bin"))) == 2
    return found


ODD_RECORDS: list[tuple[tuple[str | int, ...], Any]] = [
    *((("kept",), value) for value in ODD),
    *((("writers",), value) for value in ODD),
    *((("writers", "train"), value) for value in (None, {}, [None], [{}], "x")),
    *(
        (("writers", "train", 0, "name"), value)
        for value in ("../precious", "/etc/passwd", "x", None, "train-00001.bin")
    ),
    *((("writers", "train", 0, key), -1) for key in ("documents", "tokens", "text", "length", "sha256", "begins")),
    *((("writers", "train", 0, "begins", "items"), value) for value in (10**9, -1, "x", None)),
    *((("kept", key), value) for key in ("items", "text", "dropped") for value in (None, -1, "x", {"a": "b"})),
]


def test_a_record_of_what_is_encoded_that_says_odd_things_means_encode_again(
    interrupted: Interrupted, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_bytes(b"precious" * 1_000)
    place, good = interrupted.path, interrupted.record
    kept = shutil.copytree(place, tmp_path / "kept")
    for path, value in ODD_RECORDS:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(kept, place)
        record = json.loads(json.dumps(good))
        _at(record, path[:-1])[path[-1]] = value
        write_json(place / PROGRESS, with_checksum(record))
        told: list[TokenizationProgress] = []
        assert interrupted.go_on(told.append) == interrupted.made, (path, value)
        assert told[0].kept == 0 and told[0].damaged == (PROGRESS,)
    assert (tmp_path / "precious").read_bytes() == b"precious" * 1_000


def test_a_record_that_leaves_documents_out_is_no_way_to_lose_them(interrupted: Interrupted) -> None:
    record = interrupted.record
    record["writers"]["train"] = []
    write_json(interrupted.path / PROGRESS, with_checksum(record))
    with pytest.raises(DataError, match="does not return the same documents"):
        interrupted.go_on()


@pytest.mark.parametrize("mark", [[], "x", {}, [None, 1, 0.5], ["a", "b", "c"], [0, 1], [9, 1, 0.5], 3])
def test_a_mark_that_means_nothing_is_named(mark: Any, interrupted: Interrupted) -> None:
    record = interrupted.record
    record["kept"]["mark"] = mark
    write_json(interrupted.path / PROGRESS, with_checksum(record))
    with pytest.raises(DataError) as raised:
        interrupted.go_on()
    assert str(interrupted.path) in raised.value.where and "remove that folder" in raised.value.hint


def test_what_stands_in_the_place_of_a_token_file_is_not_written_to(interrupted: Interrupted, tmp_path: Path) -> None:
    first, second = sorted(interrupted.path.glob("train-*.bin"))
    precious = first.read_bytes() + b"and more of it"
    (tmp_path / "precious").write_bytes(precious)
    first.unlink()
    first.symlink_to(tmp_path / "precious")
    second.unlink()
    os.mkfifo(second)
    assert interrupted.go_on() == interrupted.made and (tmp_path / "precious").read_bytes() == precious


@pytest.mark.parametrize(
    "files", [*ODD, {"a": None}, {"a": {"stamp": 1}}, {"a": {"stamp": [], "sha256": "", "blocks": "x"}}]
)
def test_odd_records_of_what_was_hashed_mean_hash_it_again(files: Any, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        run.on_open()
        write_json(run.path / VERIFIED, {"files": files})
        assert TokenFileOpener(run, Console(quiet=True), print).known in ({}, files)
        write_json(run.path / VERIFIED, files)
        assert TokenFileOpener(run, Console(quiet=True), print).known == {}
