"""Best-fit packing of text: whole documents in rows, other rows in each pass, from any cursor."""

from collections import Counter

import numpy as np
import pytest

from lilliput.base.errors import RecipeError
from lilliput.data import epochs
from lilliput.data.batch import Cursor
from lilliput.data.documents import Document
from lilliput.data.mixture import Mixture
from lilliput.data.packed_runs import FILLER, packed_runs
from lilliput.data.segmentations import Segmentations
from lilliput.data.shards import Shards, write_shards
from lilliput.data.split import Split
from lilliput.tokenizer.bpe import BPE

LENGTH = 65
ROW = LENGTH - 1


class Texts:
    """Documents of 1 to 60 numbers."""

    def identity(self):
        return None

    def documents(self):
        for number in range(300):
            text = " ".join(str(number + 7 * place) for place in range(1 + number * number % 60))
            yield Document(text, str(number), str(number))


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> dict[str, Shards]:
    folder = tmp_path_factory.mktemp("texts") / "texts"
    tokenizer = BPE(vocab=400, at_most=True).train(document.text for document in Texts().documents())
    write_shards(Texts(), tokenizer, Split(share=0.05), folder)
    return {"texts": Shards(folder)}


def reader(shards):
    return Mixture(weights={"texts": 1.0}, packing="best-fit").open(shards)


def whole(shards) -> np.ndarray:
    stream = shards["texts"].stream("train")
    return stream.read(0, len(stream))


def documents_of(rows, ids, weight) -> list[tuple[int, ...]]:
    """The parts of documents in rows, but for what fills them up."""
    found = []
    for tokens, numbers, counts in zip(rows, ids, weight, strict=True):
        for number in range(numbers[0], numbers[-1] + 1):
            part = tuple(tokens[numbers == number].tolist())
            is_filler = set(part) == {0} and not counts[numbers == number][1:].any()
            found += [] if is_filler else [part]
    return found


def passes(shards, count: int):
    """The rows of the first passes, of `ROW` tokens each."""
    batch, _ = reader(shards).read(Cursor(), 2_000, LENGTH)
    sources = reader(shards).sources(Cursor(), 2_000, LENGTH)
    for number in range(count):
        rows = [row for row, source in enumerate(sources) if source.epoch == number]
        yield tuple(some[rows, :ROW].numpy() for some in (batch.tokens, batch.document_ids, batch.weight))


@pytest.mark.parametrize("chunk", [16, 4_096])
def test_documents_that_fit_are_whole_and_every_pass_has_all_of_them_in_other_rows(shards, chunk, monkeypatch) -> None:
    monkeypatch.setattr(epochs, "_CHUNK", chunk)
    stream = whole(shards)
    documents = [tuple(one.tolist()) for one in np.split(stream, np.flatnonzero(stream == 0))[1:]]
    parts = Counter(one[start : start + ROW] for one in documents for start in range(0, len(one), ROW))
    seen = set()
    for rows in passes(shards, 3):
        found = documents_of(*rows)
        assert Counter(found) == parts
        assert len(rows[0]) * ROW < 1.06 * len(stream) or chunk == 16
        seen.add(frozenset(map(bytes, rows[0])))
    assert len(seen) == 3 and not frozenset.intersection(*seen) >= min(seen, key=len)


def test_reading_resumes_at_any_cursor(shards, monkeypatch) -> None:
    monkeypatch.setattr(epochs, "_CHUNK", 32)
    straight, end = reader(shards).read(Cursor(), 900, LENGTH)
    for row in (0, 1, 333, 899):
        cursor = reader(shards).skip(Cursor(), row, LENGTH)
        batch, _ = reader(shards).read(cursor, 1, LENGTH)
        assert (batch.tokens[0] == straight.tokens[row]).all() and (batch.weight[0] == straight.weight[row]).all()
    first, cursor = reader(shards).read(Cursor(), 411, LENGTH)
    second, after = reader(shards).read(cursor, 489, LENGTH)
    assert after == end and (np.concatenate([first.tokens, second.tokens]) == straight.tokens.numpy()).all()


def test_filler_is_no_target_but_for_the_end_of_the_document_before_it(shards) -> None:
    batch, _ = reader(shards).read(Cursor(), 200, LENGTH)
    for tokens, ids, weight in zip(batch.tokens, batch.document_ids, batch.weight, strict=True):
        row, last = tokens[:ROW].numpy(), ids[:ROW].numpy()
        filler = np.flatnonzero((last == last[-1]) & (row == 0))
        if len(filler) > 1 and (row[filler[0] :] == 0).all():
            assert weight[filler[0]] == 1 and not weight[filler[1] :].any()
            assert ids[-1] > last[-1], "the next row begins another document"


def test_rows_of_another_length_begin_at_a_whole_row(shards) -> None:
    _, cursor = reader(shards).read(Cursor(), 3, LENGTH)
    batch, after = reader(shards).read(cursor, 2, 2 * ROW)
    assert batch.document_ids[0, 0] == 0 and after.of("texts") == 3 * ROW + 2 * (2 * ROW - 1)
    again, _ = reader(shards).read(after, 1, 2 * ROW)
    straight, _ = reader(shards).read(cursor, 3, 2 * ROW)
    assert (again.tokens[0] == straight.tokens[2]).all()


def test_what_fills_rows_is_counted(shards) -> None:
    fill = reader(shards).row_fill("texts", LENGTH, 1)
    rows, _, _ = next(passes(shards, 1))
    stream = whole(shards)
    assert fill is not None and fill.filler == pytest.approx(1 - len(stream) / rows.size)
    sizes = np.diff(np.flatnonzero(stream == 0), append=len(stream))
    assert fill.documents_cut == (sizes > ROW).sum() > 0
    assert Mixture(weights={"texts": 1.0}).open(shards).row_fill("texts", LENGTH, 1) is None


def test_what_a_row_is_of_is_told_with_its_filler(shards) -> None:
    batch, _ = reader(shards).read(Cursor(), 300, LENGTH)
    stream = whole(shards)
    begins = np.flatnonzero(stream == 0)
    filled = 0
    for row, source in enumerate(reader(shards).sources(Cursor(), 300, LENGTH)):
        ids = batch.document_ids[row].numpy()
        assert len(source.documents) == ids[-1] + 1
        for number, document in enumerate(source.documents):
            part = batch.tokens[row].numpy()[ids == number]
            if document < 0:
                filled += 1
                assert not part.any()
            elif part[0] == 0:
                assert (stream[begins[document] :][: len(part)] == part).all()
    assert filled


def test_runs_fill_rows() -> None:
    draw = np.random.RandomState(0)
    sizes = draw.randint(1, 300, 1_000)
    begins = np.cumsum(sizes) - sizes
    found, counts = packed_runs(begins, sizes, 100, "key")
    ends = np.cumsum(counts)
    assert ends[-1] % 100 == 0 and np.isin(np.arange(100, ends[-1] + 1, 100), ends).all()
    there = found != FILLER
    covered = np.concatenate([np.arange(a, a + b) for a, b in zip(found[there], counts[there], strict=True)])
    assert (np.sort(covered) == np.arange(sizes.sum())).all()
    assert counts[~there].sum() < 0.02 * ends[-1]


def test_other_ways_to_pack_are_refused() -> None:
    with pytest.raises(RecipeError, match="packing cannot be 'tight'"):
        Mixture(weights={"a": 1}, packing="tight")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="beside segmentations"):
        Mixture(weights={"a": 1}, packing="best-fit", segmentations=Segmentations(count=2))
