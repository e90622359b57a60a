"""Duplicates in the token files of a run: equal documents in all of them, near-duplicates in as much as is bounded.

Equal documents are those of equal tokens. Near-duplicates are searched for in the texts of the first documents of each
side, decoded, so that a page about 20 GB of text takes no longer than one about a hundred MB.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from tokenizers import Tokenizer

from lilliput.data.encoded_documents import DocumentCounts, document_texts, encoded_items
from lilliput.data.near_pairs import NearPair, near_pairs
from lilliput.data.token_files import SIDES, Side
from lilliput.report.duplicates import DuplicateCount, Duplicates, NearExample, SearchedText
from lilliput.run.run_data import RunData

SEARCHED: Mapping[str, int] = {"train": 64_000_000, "heldout": 32_000_000}
"""Characters of all corpora that are searched for near-duplicates, by side."""
DOCUMENTS = 100_000
"""Documents of a side that are, at most."""
EXAMPLES = 2
"""Near-duplicates that are shown, of each two places."""
_BATCH, _BATCH_TOKENS = 256, 1 << 18
_Counts = Mapping[str, tuple[DocumentCounts, DocumentCounts]]


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """The first documents of one side of a corpus, each once."""

    corpus: str
    side: Side
    texts: Sequence[str]
    hashes: Sequence[bytes]
    """Hashes of the tokens of each."""
    is_all: bool

    @property
    def place(self) -> str:
        return _place(self.corpus, self.side)


def find_duplicates(
    data: RunData, counts: _Counts, tokenizer: Tokenizer, report: Callable[[str], None] = lambda line: None
) -> Duplicates:
    """Find the duplicates in the data of a run.

    Args:
        data: of the run.
        counts: those of the training and of the held-out side of each corpus.
        tokenizer: that of the whole timeline.
        report: told how far it is.

    Raises:
        DataError: token files are missing or damaged.
    """
    samples = list(_samples(data, counts, tokenizer, report))
    texts = [text for sample in samples for text in sample.texts]
    hashes = [one for sample in samples for one in sample.hashes]
    sources = np.repeat(np.arange(len(samples)), [len(sample.texts) for sample in samples])
    report(f"looking for near-duplicates among {len(texts):,} documents")
    known = [set(sample.hashes) for sample in samples]
    found: dict[tuple[str, str], list[NearPair]] = {}
    for pair in near_pairs(texts, sources):
        one, other = sources[pair.one], sources[pair.other]
        if one == other or hashes[pair.one] not in known[other]:
            found.setdefault((samples[one].place, samples[other].place), []).append(pair)
    places = list(_places(counts))
    return Duplicates(
        counts=[
            DuplicateCount(documents=one, also_in=other, equal=equal, near=len(found.get((one, other), ())))
            for one, other, equal, is_shown in places
            if is_shown or equal or (one, other) in found
        ],
        examples=[
            NearExample(
                documents=one, also_in=other, likeness=pair.likeness, texts=(texts[pair.one], texts[pair.other])
            )
            for one, other, _, _ in places
            for pair in found.get((one, other), ())[:EXAMPLES]
        ],
        texts=[SearchedText(documents=one.place, size=sum(map(len, one.texts)), is_all=one.is_all) for one in samples],
    )


def _place(corpus: str, side: Side) -> str:
    return corpus if side == "train" else f"{corpus}, held out"


def _places(counts: _Counts) -> Iterator[tuple[str, str, int, bool]]:
    """Two places each, the number of documents of the first that equal one of the second, and whether to say so if it
    is 0: of documents that an earlier one of their corpus equals, and of those held out of it.
    """
    names = [name for name, (train, _) in counts.items() if len(train.lengths)]
    for name in names:
        ordered = np.sort(counts[name][0].hashes)
        yield name, name, int((ordered[1:] == ordered[:-1]).sum()), True
    for place, name in enumerate(names):
        for other in names[:place]:
            yield name, other, int(counts[name][0].are_in(counts[other][0]).sum()), False
    for name in names:
        for other in names:
            if len(counts[name][1].lengths):
                equal = int(counts[name][1].are_in(counts[other][0]).sum())
                yield _place(name, "heldout"), other, equal, name == other


def _samples(data: RunData, counts: _Counts, tokenizer: Tokenizer, report: Callable[[str], None]) -> Iterator[_Sample]:
    """The first documents of every side, of the smallest first, so that what these leave is for the larger ones."""
    for number, side in enumerate(SIDES):
        left, documents = SEARCHED[side], DOCUMENTS
        names = sorted(counts, key=lambda name: counts[name][number].lengths.sum())
        names = [name for name in names if len(counts[name][number].lengths)]
        for place, name in enumerate(names):
            report(f"reading texts of {_place(name, side)}")
            share = len(names) - place
            sample = _sample(data, name, side, tokenizer, left // share, documents // share)
            left -= sum(map(len, sample.texts))
            documents -= len(sample.texts)
            yield sample


def _sample(data: RunData, name: str, side: Side, tokenizer: Tokenizer, characters: int, documents: int) -> _Sample:
    """The first documents of a side, up to so many characters or documents; of equal ones the first."""
    found: dict[bytes, str] = {}
    size, is_all = 0, True
    for some in _batches(encoded_items(data.tokens(name), side)):
        if size >= characters or len(found) >= documents:
            is_all = False
            break
        keys = [blake2b(one.tobytes(), digest_size=8).digest() for one in some]
        for key, text in zip(keys, document_texts(some, tokenizer), strict=True):
            if key not in found:
                found[key] = text
                size += len(text)
    return _Sample(corpus=name, side=side, texts=list(found.values()), hashes=list(found), is_all=is_all)


def _batches(documents: Iterator[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Documents that are decoded together: few where they are long."""
    some: list[np.ndarray] = []
    for document in documents:
        some.append(document)
        if len(some) == _BATCH or sum(map(len, some)) >= _BATCH_TOKENS:
            yield some
            some = []
    if some:
        yield some
