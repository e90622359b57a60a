"""Counts of documents: lengths, hashes and which of them other token files have, in a few bytes a document."""

from pathlib import Path

import numpy as np
import pytest
import tiny

from lilliput.data.corpora.files import TextFiles
from lilliput.data.encoded_documents import DocumentCounts, count_documents
from lilliput.data.shards import Shards, write_shards
from lilliput.data.split import Split
from lilliput.tokenizer.bpe import BPE


def of(*hashes: int) -> DocumentCounts:
    return DocumentCounts(
        lengths=np.ones(len(hashes), dtype=np.int64),
        hashes=np.array(hashes, dtype=np.uint64),
        occurrences=np.zeros(1, dtype=np.int64),
    )


@pytest.mark.parametrize(
    ("some", "others", "expected"),
    [
        ((3, 9, 3, 2**64 - 1), (2**64 - 1, 3, 3), [True, False, True, True]),
        ((1, 8), (5,), [False, False]),
        ((), (5,), []),
        ((5, 6), (), [False, False]),
    ],
)
def test_documents_that_others_have(some: tuple[int, ...], others: tuple[int, ...], expected: list[bool]) -> None:
    assert of(*some).are_in(of(*others)).tolist() == expected


def test_counts_are_those_of_the_token_files(tmp_path: Path) -> None:
    texts, _ = tiny.write_corpora(tmp_path)
    tokenizer = BPE(vocab=290).train(tiny.sentences(n) for n in range(100))
    write_shards(TextFiles(paths=(str(texts),)), tokenizer, Split(share=0.2), tmp_path / "shards", shard_tokens=5_000)
    shards = Shards(tmp_path / "shards")
    stream = shards.stream("train")
    ids = stream.read(0, len(stream))
    documents = [one[1:] for one in np.split(ids, np.flatnonzero(ids == shards.end)[1:])]
    counts = count_documents(shards, "train")
    assert counts.lengths.tolist() == [len(one) for one in documents if len(one)] and counts.lengths.dtype == np.int64
    assert len(set(counts.hashes.tolist())) == len({one.tobytes() for one in documents})
    expected = np.bincount(np.concatenate(documents), minlength=shards.index["vocab"])
    assert counts.occurrences.tolist() == expected.tolist()
    assert counts.are_in(counts).all() and counts.lengths.nbytes + counts.hashes.nbytes == 16 * len(counts.lengths)
