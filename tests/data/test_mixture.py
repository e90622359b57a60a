import json
import random
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch

from lilliput.base.errors import DataError, RecipeError
from lilliput.base.spec import from_plain, to_plain
from lilliput.data import epochs, pieces
from lilliput.data.batch import Batch, Cursor, document_ids_of
from lilliput.data.documents import Document
from lilliput.data.epochs import EpochStream
from lilliput.data.mixture import Mixture, MixtureReader
from lilliput.data.permutation import Permutation
from lilliput.data.shards import Shards, write_shards
from lilliput.data.split import Split
from lilliput.tokenizer.bpe import BPE

SIZES = {"books": 30, "code": 70, "news": 110, "tiny": 2}
WEIGHTS = (
    {"news": 1.0},
    {"books": 0.55, "news": 0.25, "code": 0.1, "tiny": 0.1},
    {"books": 1, "news": 1, "code": 1},
    {"tiny": 0.9, "code": 0.1},
    {"books": 2 / 3, "news": 1 / 3},
)


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Documents whose words name the corpus, the document and the position in it, so that every token is known."""

    name: str
    count: int

    def documents(self):
        rng = random.Random(self.name)
        for index in range(self.count):
            words = " ".join("".join(rng.choices("abcdefgh", k=5)) for _ in range(rng.randint(1, 30)))
            yield Document(f"{self.name} {index}: {words}", f"{index}", f"{index}")


@dataclass(frozen=True)
class Listed:
    """These documents."""

    all: list[Document]

    def documents(self):
        return iter(self.all)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> dict[str, Shards]:
    folder = tmp_path_factory.mktemp("shards")
    texts = [document.text for name in SIZES for document in Counted(name=name, count=SIZES[name]).documents()]
    tokenizer = BPE(vocab=350).train(texts)
    for name, count in SIZES.items():
        corpus = Counted(name=name, count=count)
        write_shards(corpus, tokenizer, Split(share=0), folder / name, shard_tokens=1_000)
    return {name: Shards(folder / name) for name in SIZES}


def equal(first: Batch, second: Batch) -> bool:
    return all(
        torch.equal(getattr(first, field), getattr(second, field)) for field in ("tokens", "weight", "document_ids")
    )


def test_to_skip_rows_is_to_read_them_and_leave_them(shards) -> None:
    reader, cursor = Mixture(weights={"books": 0.2, "code": 0.3, "news": 0.5}).open(shards), Cursor()
    for rows, length, overlap in ((1, 9, 1), (7, 33, 1), (150, 16, 4)):
        _, after = reader.read(cursor, rows, length, overlap)
        assert reader.skip(cursor, rows, length, overlap) == after
        cursor = after


def join(batches: list[Batch]) -> Batch:
    return Batch(
        tokens=torch.cat([batch.tokens for batch in batches]),
        weight=torch.cat([batch.weight for batch in batches]),
        document_ids=torch.cat([batch.document_ids for batch in batches]),
    )


def whole(shards: Shards) -> np.ndarray:
    stream = shards.stream("train")
    return stream.read(0, len(stream))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_reading_in_pieces_is_reading_at_once(weights, shards) -> None:
    reader = Mixture(weights=weights).open(shards)
    straight, last = reader.read(Cursor(), 150, 33)
    rng = random.Random(0)
    for _ in range(5):
        cursor, batches, left = Cursor(), [], 150
        while left:
            rows = rng.randint(1, left)
            saved = json.loads(json.dumps(cursor.to_plain()))
            batch, cursor = Mixture(weights=weights).open(shards).read(Cursor.from_plain(saved), rows, 33)
            batches.append(batch)
            left -= rows
        assert equal(join(batches), straight)
        assert cursor == last


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_proportions_hold_at_every_prefix(weights, shards) -> None:
    reader = Mixture(weights=weights).open(shards)
    total = sum(Fraction(str(weight)) for weight in weights.values())
    cursor, steps = Cursor(), 16
    for rows in range(1, 400):
        _, cursor = reader.read(cursor, 1, steps + 1)
        for name, weight in weights.items():
            due = Fraction(str(weight)) / total * rows
            assert abs(cursor.of(name) / steps - due) < 1, (rows, name)
    assert sum(position for _, position in cursor.positions) == 399 * steps


def test_equal_weights_take_turns_by_name(shards) -> None:
    reader = Mixture(weights={"news": 0.1, "code": 0.1, "books": 0.1}).open(shards)
    cursor, order = Cursor(), []
    for _ in range(9):
        before = cursor
        _, cursor = reader.read(cursor, 1, 9)
        order += [name for name, position in cursor.positions if position != before.of(name)]
    assert order == ["books", "code", "news"] * 3


def test_the_heaviest_source_comes_first(shards) -> None:
    _, cursor = Mixture(weights={"books": 0.2, "code": 0.3, "news": 0.5}).open(shards).read(Cursor(), 1, 9)
    assert cursor.to_plain() == {"books": 0, "code": 0, "news": 8}


def test_the_scale_of_the_weights_does_not_matter(shards) -> None:
    first, _ = Mixture(weights={"books": 0.3, "news": 0.7}).open(shards).read(Cursor(), 60, 20)
    second, _ = Mixture(weights={"news": 7, "books": 3}).open(shards).read(Cursor(), 60, 20)
    assert equal(first, second)


def in_order(shards: Shards, name: str, number: int) -> np.ndarray:
    """The tokens of a pass, by the definition: its documents one after the other, as the permutation has them."""
    documents = np.split(whole(shards), np.flatnonzero(whole(shards) == 0))[1:]
    order = Permutation(len(documents), f"0\0{name}\0{number}")(np.arange(len(documents)))
    return np.concatenate([documents[index] for index in order])


@pytest.mark.parametrize("overlap", [0, 1, 4])
@pytest.mark.parametrize("chunk", [7, 4_096])
def test_a_pass_reads_the_documents_as_permuted_with_the_overlap(overlap: int, chunk: int, shards, monkeypatch) -> None:
    monkeypatch.setattr(epochs, "_CHUNK", chunk)
    reader = Mixture(weights={"news": 1}).open(shards)
    stream = np.concatenate([in_order(shards["news"], "news", number) for number in range(3)])
    length = 12
    rows = len(stream) // (length - overlap) - 2
    batch, cursor = reader.read(Cursor(), rows, length, overlap)
    for row in range(rows):
        start = row * (length - overlap)
        assert batch.tokens[row].tolist() == stream[start : start + length].tolist()
    assert cursor == Cursor(positions=(("news", rows * (length - overlap)),))


def test_every_pass_reads_every_document_once_in_an_order_of_its_own(shards) -> None:
    reader = Mixture(weights={"code": 1}).open(shards)
    stream = whole(shards["code"])
    batch, _ = reader.read(Cursor(), 5 * len(stream), 2)
    orders = set()
    for tokens in batch.tokens[:, 0].numpy().reshape(5, len(stream)):
        documents = [tuple(one) for one in np.split(tokens, np.flatnonzero(tokens == 0))[1:]]
        assert sorted(documents) == sorted(tuple(one) for one in np.split(stream, np.flatnonzero(stream == 0))[1:])
        orders.add(tuple(documents))
    assert len(orders) == 5


def test_the_seed_and_the_name_of_the_corpus_decide_the_order(shards) -> None:
    stream = shards["news"].stream("train")
    orders = {
        tuple(MixtureReader({name: 1}, {name: stream}, seed).read(Cursor(), 1, 200)[0].tokens[0].tolist())
        for name in ("first", "second")
        for seed in (0, 1)
    }
    assert len(orders) == 4


def test_a_cursor_far_ahead_is_found_without_what_comes_before_it(shards, monkeypatch) -> None:
    monkeypatch.setattr(epochs, "_CHUNK", 8)
    straight, _ = Mixture(weights={"news": 1}).open(shards).read(Cursor(), 400, 33)
    for row in (399, 123, 0):
        batch, _ = Mixture(weights={"news": 1}).open(shards).read(Cursor(positions=(("news", row * 32),)), 1, 33)
        assert batch.tokens[0].tolist() == straight.tokens[row].tolist()


def test_texts_that_lie_apart_are_read_together(shards, tmp_path) -> None:
    """Two folders, one after the other: from the first rows on, either has its share."""
    corpora = Counted(name="books", count=300), Counted(name="news", count=300)
    documents = [document for corpus in corpora for document in corpus.documents()]
    tokenizer = BPE(vocab=350).train([document.text for document in documents])
    write_shards(Listed(documents), tokenizer, Split(share=0), tmp_path / "both")
    stream = Shards(tmp_path / "both").stream("train")
    middle = int(np.flatnonzero(stream.read(0, len(stream)) == 0)[300])
    order = EpochStream(stream, "any")
    first = order._pass(0)._chunk(0).sources[:60] < middle
    assert 15 < first.sum() < 45, "30 of 60 expected"


@pytest.mark.parametrize("block", [1, 5, 1_000])
def test_long_documents_are_several_pieces(block: int, monkeypatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 10)
    sizes = [1, 10, 11, 3, 20, 21, 95, 2]
    tokens = np.concatenate([[0, *[7] * (size - 1)] for size in sizes])
    blocks = [tokens[start : start + block] for start in range(0, len(tokens), block)]
    begins = np.concatenate(list(pieces.piece_begins(blocks, 0)))
    lengths = np.diff(begins, append=len(tokens))
    assert set(np.flatnonzero(tokens == 0)) <= set(begins)
    assert lengths.tolist() == [1, 10, 5, 6, 3, 10, 10, 7, 7, 7, 9, 10, 9, 10, 9, 10, 9, 10, 9, 10, 2]


def test_a_piece_within_a_document_stands_alone_and_its_first_token_is_no_target(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(pieces, "PIECE", 16)
    documents = [Document(" ".join(str(n) for n in range(60)), "long", "long"), Document("short", "short", "short")]
    tokenizer = BPE(vocab=258).train([document.text for document in documents])
    write_shards(Listed(documents), tokenizer, Split(share=0), tmp_path / "few")
    few = Shards(tmp_path / "few")
    size = len(few.stream("train"))
    batch, _ = Mixture(weights={"few": 1}).open({"few": few}).read(Cursor(), 1, size, 0)
    begins = np.diff(batch.document_ids[0].numpy(), prepend=-1) == 1
    assert begins.sum() == few.index["pieces"] > 10
    assert ((batch.weight[0] == 0).numpy() == (begins & (batch.tokens[0] != 0).numpy())).all()
    assert (batch.tokens[0] == 0).sum() == 2 and sorted(batch.tokens[0]) == sorted(few.stream("train").read(0, size))


def test_a_row_may_hold_many_passes(shards) -> None:
    length = 3 * len(whole(shards["tiny"])) + 5
    batch, cursor = Mixture(weights={"tiny": 1}).open(shards).read(Cursor(), 2, length)
    assert batch.tokens.shape == (2, length)
    assert (batch.tokens[0] == 0).sum() >= 6
    assert cursor.of("tiny") == 2 * (length - 1)


def test_batches_have_their_types_and_segments(shards) -> None:
    weights = {"books": 0.5, "tiny": 0.5}
    reader = Mixture(weights=weights).open(shards)
    batch, _ = reader.read(Cursor(), 40, 65)
    assert (batch.tokens.dtype, batch.weight.dtype, batch.document_ids.dtype) == (
        torch.int64,
        torch.float32,
        torch.int32,
    )
    assert batch.tokens.shape == batch.weight.shape == batch.document_ids.shape == (40, 65)
    assert bool((batch.weight == 1).all())
    assert np.array_equal(batch.document_ids.numpy(), document_ids_of(batch.tokens.numpy(), end=0))
    steps = batch.document_ids[:, 1:] - batch.document_ids[:, :-1]
    assert torch.equal(steps == 1, batch.tokens[:, 1:] == 0) and bool((batch.document_ids[:, 0] == 0).all())
    assert equal(batch.to("cpu"), batch)
    assert batch.to("meta").tokens.device.type == "meta"
    assert reader.tokens_available == len(whole(shards["books"])) + len(whole(shards["tiny"]))


def test_rows_of_changing_length_keep_the_proportions_of_tokens(shards) -> None:
    reader = Mixture(weights={"books": 0.25, "news": 0.75}).open(shards)
    cursor = Cursor()
    for rows, length, overlap in ((40, 20, 4), (40, 10, 2), (40, 65, 1)):
        _, cursor = reader.read(cursor, rows, length, overlap)
        taken = dict(cursor.positions)
        assert abs(taken["books"] - sum(taken.values()) / 4) < 64


def test_impossible_mixtures_and_foreign_cursors_are_refused(shards) -> None:
    for weights in ({}, {"books": 0.0}, {"books": 1, "news": -1}, {"books": float("nan")}, {"books": float("inf")}):
        with pytest.raises(RecipeError):
            Mixture(weights=weights)
    with pytest.raises(DataError, match="'novels'"):
        Mixture(weights={"novels": 1}).open(shards)
    with pytest.raises(DataError, match="code"):
        Mixture(weights={"books": 1}).open(shards).read(Cursor(positions=(("code", 5),)), 1, 8)


def test_specs_and_cursors_survive_json() -> None:
    mixture = Mixture(weights={"books": 0.5, "news": 0.5})
    assert from_plain(json.loads(json.dumps(to_plain(mixture)))) == mixture
    cursor = Cursor(positions=(("a", 3), ("b", 10**12)))
    assert Cursor.from_plain(json.loads(json.dumps(cursor.to_plain()))) == cursor
    assert cursor.of("b") == 10**12 and cursor.of("c") == 0
    assert Cursor.from_plain({}) == Cursor()


@pytest.mark.parametrize("weights", WEIGHTS[:4])
def test_rows_know_the_documents_that_they_have_tokens_of(shards, weights):
    reader, tokenizer = Mixture(weights=weights, seed=3).open(shards), shards_tokenizer(shards)
    kept = {name: [document.text for document in Counted(name=name, count=SIZES[name]).documents()] for name in SIZES}
    cursor = Cursor()
    for rows in (1, 30, 200):  # several passes of the small ones
        batch, after = reader.read(cursor, rows, 64)
        assert reader.skip(cursor, rows, 64) == after
        sources = reader.sources(cursor, rows, 64)
        for row, source in enumerate(sources):
            owners = batch.document_ids[row]
            assert len(source.documents) == int(owners[-1]) + 1
            for place, number in enumerate(source.documents):
                part = batch.tokens[row][owners == place].tolist()
                text = tokenizer.decode(part, skip_special_tokens=True)
                assert text in kept[source.corpus][number]
            size = len(shards[source.corpus].stream("train"))
            taken = {name: 0 for name in weights} | dict(cursor.positions)
            behind = sum(one.corpus == source.corpus for one in sources[:row])
            assert source.epoch == (taken[source.corpus] + 63 * behind) // size
        cursor = after


def shards_tokenizer(shards):
    texts = [document.text for name in SIZES for document in Counted(name=name, count=SIZES[name]).documents()]
    return BPE(vocab=350).train(texts)
