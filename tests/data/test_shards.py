import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tiny_corpora import corpus_hash
from tokenizers import Tokenizer

from lilliput.base.errors import DataError
from lilliput.base.files import sha256
from lilliput.data.batch import document_ids_of
from lilliput.data.documents import Document
from lilliput.data.shards import Shards, write_shards
from lilliput.data.split import Split
from lilliput.data.token_files import SIDES
from lilliput.tokenizer.bpe import BPE, END, tokenizer_hash


@dataclass(frozen=True, kw_only=True)
class Listed:
    listed: tuple[Document, ...]

    def documents(self):
        yield from self.listed


def texts(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 8))) for _ in range(200)]
    return [" ".join(rng.choices(words, k=rng.randint(1, 40))) + " é🙂" for _ in range(count)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return BPE(vocab=400).train(texts(200))


@pytest.fixture(scope="module")
def corpus() -> Listed:
    listed = [Document(text, f"d{index}", f"g{index // 3}") for index, text in enumerate(texts(120))]
    listed[5] = Document("", "empty", "g5")
    listed[7] = Document(f"spelled {END} out", "spelled", "g7")
    return Listed(listed=tuple(listed))


SPLIT = Split(share=0.2)


@pytest.fixture
def folder(corpus, tokenizer, tmp_path) -> Path:
    write_shards(corpus, tokenizer, SPLIT, tmp_path / "shards", shard_tokens=500)
    return tmp_path / "shards"


def sides_of(corpus: Listed) -> dict[str, list[Document]]:
    return {
        side: [document for document in corpus.listed if SPLIT.is_heldout(document.group) == (side == "heldout")]
        for side in SIDES
    }


def documents_in(tokens: np.ndarray, tokenizer: Tokenizer) -> list[str]:
    begins = np.flatnonzero(tokens == 0)
    assert begins[0] == 0
    return [tokenizer.decode(list(part[1:])) for part in np.split(tokens, begins[1:])]


def test_documents_come_back_in_order_on_their_sides(corpus, tokenizer, folder) -> None:
    shards = Shards(folder, tokenizer_hash(tokenizer))
    for side, documents in sides_of(corpus).items():
        stream = shards.stream(side)
        tokens = stream.read(0, len(stream))
        assert tokens.dtype == np.int64
        assert documents_in(tokens, tokenizer) == [document.text for document in documents]
        totals = shards.index["sides"][side]
        assert totals["tokens"] == len(stream)
        assert totals["documents"] == len(documents)
        assert totals["bytes"] == sum(len(document.text.encode()) for document in documents)
        files = [file for file in shards.index["files"] if file.get("side") == side]
        assert len(files) > 1
        assert sum(file["tokens"] for file in files) == len(stream)
        assert sum(file["documents"] for file in files) == len(documents)
    heldout = sides_of(corpus)["heldout"]
    assert list(shards.heldout_texts()) == [(document.id, document.text) for document in heldout]
    assert not {document.group for document in heldout} & {document.group for document in sides_of(corpus)["train"]}


def test_reading_is_circular_across_files(folder) -> None:
    stream = Shards(folder).stream("train")
    whole = stream.read(0, len(stream))
    rng = random.Random(0)
    for _ in range(200):
        start, count = rng.randrange(3 * len(stream)), rng.randrange(2 * len(stream))
        assert np.array_equal(stream.read(start, count), whole[np.arange(start, start + count) % len(stream)])


@pytest.mark.parametrize("length", [1, 7, 64, 100_000])
def test_rows_make_every_token_but_the_first_a_target_once(folder, length: int) -> None:
    shards = Shards(folder)
    stream = shards.stream("heldout")
    whole = stream.read(0, len(stream))
    targets, inputs = [], []
    for tokens, weight in shards.rows("heldout", length):
        assert tokens.shape == weight.shape == (length + 1,)
        assert (tokens.dtype, weight.dtype) == (np.int64, np.float32)
        assert weight[0] == 0 and weight[1] == 1
        targets.append(tokens[weight == 1])
        inputs.append(tokens[:-1][weight[1:] == 1])
    assert np.array_equal(np.concatenate(targets), whole[1:])
    assert np.array_equal(np.concatenate(inputs), whole[:-1])


def test_a_row_ends_exactly_where_the_stream_does(tokenizer, tmp_path) -> None:
    corpus = Listed(listed=(Document("1234567", "only", "only"),))
    write_shards(corpus, tokenizer, Split(share=0), tmp_path / "one")
    rows = list(Shards(tmp_path / "one").rows("train", 7))
    assert len(rows) == 1 and rows[0][1].sum() == 7
    assert len(list(Shards(tmp_path / "one").rows("train", 6))) == 2


@pytest.mark.parametrize(("vocab", "dtype"), [(65_536, "uint16"), (65_537, "uint32")])
def test_large_vocabularies_take_four_bytes(vocab: int, dtype: str, tokenizer, tmp_path) -> None:
    large = Tokenizer.from_str(tokenizer.to_str())
    large.add_tokens([f"<extra {number}>" for number in range(vocab - large.get_vocab_size())])
    corpus = Listed(listed=(Document(f"a <extra {vocab - 401}> b", "only", "only"),))
    index = write_shards(corpus, large, Split(share=0), tmp_path / "large").index
    assert (index["vocab"], index["dtype"]) == (vocab, dtype)
    stream = Shards(tmp_path / "large", tokenizer_hash(large)).stream("train")
    tokens = stream.read(0, len(stream))
    assert tokens.max() == vocab - 1
    assert documents_in(tokens, large) == [corpus.listed[0].text]
    size = (tmp_path / "large" / "train-00000.bin").stat().st_size
    assert size == 64 + len(stream) * np.dtype(dtype).itemsize


def test_a_flipped_byte_in_any_file_is_found(folder) -> None:
    names = sorted(path.name for path in folder.iterdir())
    assert {"index.json", "heldout.txt.jsonl", "train-00001.bin", "heldout-00000.bin"} <= set(names)
    for name in names:
        path = folder / name
        good = path.read_bytes()
        for offset in (0, len(good) // 2, len(good) - 2):
            path.write_bytes(good[:offset] + bytes([good[offset] ^ 1]) + good[offset + 1 :])
            with pytest.raises(DataError) as raised:
                Shards(folder)
            assert name in str(raised.value)
        path.unlink()
        with pytest.raises(DataError) as raised:
            Shards(folder)
        assert name in str(raised.value)
        path.write_bytes(good)
    Shards(folder)


def test_another_tokenizer_is_refused_by_name(folder, tokenizer) -> None:
    other = tokenizer_hash(BPE(vocab=300).train(texts(50, seed=1)))
    with pytest.raises(DataError) as raised:
        Shards(folder, other)
    assert other in str(raised.value) and tokenizer_hash(tokenizer) in str(raised.value)
    assert "lilliput run" in raised.value.hint


def test_the_same_corpus_gives_the_same_bytes(corpus, tokenizer, folder, tmp_path) -> None:
    done = []
    made = write_shards(corpus, tokenizer, SPLIT, tmp_path / "again", shard_tokens=500, progress=done.append)
    assert done[-1].documents == 120
    assert made.text == corpus_hash(corpus.documents()) and made.dropped == {}
    assert made.index == json.loads((folder / "index.json").read_text()) == Shards(folder).index
    for path in folder.iterdir():
        assert sha256(path) == sha256(tmp_path / "again" / path.name)


def test_nothing_is_left_behind_when_writing_fails(tokenizer, folder, tmp_path) -> None:
    before = {path.name: sha256(path) for path in folder.iterdir()}
    broken = Listed(listed=(Document("fine", "a", "a"), Document("not \ud800 fine", "crooked", "b")))
    with pytest.raises(DataError, match="crooked"):
        write_shards(broken, tokenizer, SPLIT, folder)
    assert {path.name: sha256(path) for path in folder.iterdir()} == before
    for corpus, split in ((Listed(listed=()), SPLIT), (Listed(listed=(Document("x", "a", "a"),)), Split(share=1))):
        with pytest.raises(DataError, match="no document is left"):
            write_shards(corpus, tokenizer, split, tmp_path / "empty")
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]


def test_an_empty_held_out_side_is_named_when_it_is_asked_for(corpus, tokenizer, tmp_path) -> None:
    write_shards(corpus, tokenizer, Split(share=0), tmp_path / "all")
    shards = Shards(tmp_path / "all")
    assert list(shards.heldout_texts()) == []
    with pytest.raises(DataError, match="heldout"):
        shards.stream("heldout")
    with pytest.raises(DataError, match="heldout"):
        next(shards.rows("heldout", 8))


def test_segments_count_documents_from_zero() -> None:
    tokens = np.array([[0, 5, 6, 0, 0, 7], [5, 6, 0, 7, 8, 9], [1, 2, 3, 4, 5, 6]])
    assert document_ids_of(tokens, end=0).tolist() == [[0, 0, 0, 1, 2, 2], [0, 0, 1, 1, 1, 1], [0] * 6]
    assert document_ids_of(tokens, end=0).dtype == np.int32
