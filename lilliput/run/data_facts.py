"""Facts about the data of a run, for its page: each token file is read once, and nothing is written."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from lilliput.base.spec import to_plain
from lilliput.data.dropped import read_samples
from lilliput.data.encoded_documents import DocumentCounts, count_documents, encoded_documents
from lilliput.data.license_terms import license_names, unnamed
from lilliput.data.lost_conversations import lost
from lilliput.data.mixture import Mixture
from lilliput.evals.question_files import QuestionSource
from lilliput.evals.suites import named
from lilliput.plan.corpora import source
from lilliput.report.data_page import CorpusFacts, DataFacts, MixtureShare, Repeats, TaskOverlap
from lilliput.run.contamination import trained_corpora
from lilliput.run.duplicates import find_duplicates
from lilliput.run.read_items import find_read_items
from lilliput.run.run_data import RunData
from lilliput.train.passes import shares

EXAMPLES, EXCERPT = 3, 300
"""Repeated documents of a corpus that are shown, and characters of each."""


def data_facts(
    data: RunData, questions: QuestionSource | None, report: Callable[[str], None] = lambda line: None
) -> DataFacts:
    """Read the data of a run.

    Args:
        data: of the run.
        questions: benchmarks to look for in the training text; None to look for none.
        report: told how far it is.

    Raises:
        DataError: token files or questions are missing or damaged.
    """
    counts: dict[str, tuple[DocumentCounts, DocumentCounts]] = {}
    for name in data.corpora:
        report(f"reading the token files of {name}")
        counts[name] = count_documents(data.tokens(name), "train"), count_documents(data.tokens(name), "heldout")
    tokenizer = data.tokenizer(len(data.recipe.timeline))
    return DataFacts(
        recipe=data.recipe.name,
        corpora=[_corpus(data, name, counts, tokenizer) for name in data.corpora],
        mixture=list(_mixture(data)),
        duplicates=find_duplicates(data, counts, tokenizer, report),
        overlaps=None if questions is None else _overlaps(data, questions, report),
    )


def _corpus(
    data: RunData, name: str, counts: Mapping[str, tuple[DocumentCounts, DocumentCounts]], tokenizer: Tokenizer
) -> CorpusFacts:
    corpus, record = data.recipe.corpora[name], data.record(name)
    dropped = dict(record.get("dropped", {}))
    for side in record["sides"].values():
        for reason, count in lost(side).items():
            dropped[reason] = dropped.get(reason, 0) + count
    return CorpusFacts(
        name=name,
        source=source(corpus),
        licenses=license_names(to_plain(corpus)) or _unnamed(name, corpus),
        sides=record["sides"],
        dropped=dropped,
        samples=read_samples(data.folder / "shards" / name),
        lengths=counts[name][0].lengths,
        repeats=_repeats(data.tokens(name), name, counts, tokenizer),
    )


def _unnamed(name: str, corpus: Any) -> list[str]:
    return ["no license named"] if unnamed({name: to_plain(corpus)}) else []


def _repeats(
    files: Any, name: str, counts: Mapping[str, tuple[DocumentCounts, DocumentCounts]], tokenizer: Tokenizer
) -> Repeats:
    train, heldout = counts[name]
    others = [one for other, (one, _) in counts.items() if other != name]
    order = np.argsort(train.hashes, kind="stable")  # np.unique takes ten numbers a document where this takes two
    ordered = train.hashes[order]
    is_again = np.zeros(len(order), dtype=bool)
    is_again[1:] = ordered[1:] == ordered[:-1]
    begins = np.flatnonzero(~is_again[:-1] & is_again[1:])  # in the order of their hashes
    times = 1 + np.bincount(np.searchsorted(begins, np.flatnonzero(is_again)) - 1, minlength=len(begins))
    often = np.argsort(-times, kind="stable")[:EXAMPLES]
    places = {int(order[begins[place]]): int(times[place]) for place in often}
    texts = _documents_at(files, places, tokenizer)
    return Repeats(
        within=int(is_again.sum()),
        tokens=int(train.lengths[order[is_again]].sum()),
        elsewhere=int(_in_any(train, others).sum()),
        heldout=int(_in_any(heldout, [train, *others]).sum()),
        examples=[(count, texts[place]) for place, count in places.items()],
    )


def _in_any(some: DocumentCounts, others: Sequence[DocumentCounts]) -> np.ndarray:
    """Which documents any of the others has, too, [documents] bool."""
    found = np.zeros(len(some.hashes), dtype=bool)
    for one in others:
        found |= some.are_in(one)
    return found


def _documents_at(files: Any, places: Mapping[int, int], tokenizer: Tokenizer) -> dict[int, str]:
    """The beginnings of the training documents at some places."""
    found: dict[int, str] = {}
    documents = (one for some in encoded_documents(files, "train") for one in some if len(one)) if places else ()
    for place, ids in enumerate(documents):
        if place in places:
            found[place] = tokenizer.decode(ids[:EXCERPT].tolist(), skip_special_tokens=False)[:EXCERPT]
        if len(found) == len(places):
            break
    return found


def _mixture(data: RunData) -> Iterator[MixtureShare]:
    for index, phase in data.recipe.phases.items():
        if not set(phase.reads()) <= set(data.corpora):
            continue
        asked, read = shares(phase), data.read(index)
        total = sum(read.values()) if read else 0
        mixture = phase.data if isinstance(phase.data, Mixture) and phase.data.packing != "stream" else None
        reader = mixture and mixture.open({name: data.tokens(name) for name in phase.reads()})
        for name, share in asked.items():
            tokens = read.get(name, 0) if read else round(share * int(phase.tokens))
            yield MixtureShare(
                phase=phase.name,
                corpus=name,
                asked=share,
                tokens=tokens,
                share=tokens / total if total else None,
                passes=tokens / data.tokens_per_pass(name),
                row_fill=None if reader is None else reader.row_fill(name, *phase.row_tokens(0)),
            )


def _overlaps(data: RunData, questions: QuestionSource, report: Callable[[str], None]) -> Sequence[TaskOverlap]:
    suites = dict.fromkeys(release.suite for release in data.recipe.releases.values())
    uses = {
        use.task: use
        for suite in map(named, suites)
        for use in (*suite.tasks, *suite.optional)
        if questions.missing(use) is None
    }
    found = find_read_items(data.folder, trained_corpora(data.recipe), uses.values(), questions, report=report)
    return [
        TaskOverlap(
            task=uses[task].display, items=counts.indexed + counts.short, overlapped=found.of(task), short=counts.short
        )
        for task, counts in found.counts.items()
    ]
