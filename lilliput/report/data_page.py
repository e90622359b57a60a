"""`data.html`: the corpora of a run and what its phases read of them, on one page that needs nothing but itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lilliput.base.files import write_text
from lilliput.base.text_units import number, size
from lilliput.data.dropped import Sample
from lilliput.data.epochs import RowFill
from lilliput.report.charts import Axis, Chart, Series
from lilliput.report.duplicates import Duplicates, duplicate_table, example_view, searched
from lilliput.report.page import render
from lilliput.report.table import Column, Table

PAGE = "data.html"
COUNTED = ("documents", "conversations", "pairs")
"""Counts of items, by the keys of a token index."""


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Documents whose tokens are those of others."""

    within: int
    """Training documents that an earlier one of the same corpus equals."""
    tokens: int
    """Tokens of these."""
    elsewhere: int
    """Training documents that another corpus has, too."""
    heldout: int
    """Held-out documents that the training side of any corpus has."""
    examples: Sequence[tuple[int, str]]
    """The most frequent ones: count, and the beginning of the text."""


@dataclass(frozen=True, kw_only=True)
class CorpusFacts:
    """Contents of the token files of a corpus."""

    name: str
    source: str
    licenses: Sequence[str]
    sides: Mapping[str, Mapping[str, Any]]
    """Counts by side, as the index of the token files has them."""
    dropped: Mapping[str, int]
    """Number of items dropped, by reason."""
    samples: Sequence[Sample]
    lengths: np.ndarray
    """Tokens of each training document."""
    repeats: Repeats


@dataclass(frozen=True, kw_only=True)
class MixtureShare:
    """Tokens that a phase reads of a corpus."""

    phase: str
    corpus: str
    asked: float
    """Share of the phase's tokens, as its mixture says."""
    tokens: int
    """Tokens read; until the phase is trained, those that are planned."""
    share: float | None
    """Share of the tokens read; None until the phase is trained."""
    passes: float
    """Passes over the training side."""
    row_fill: RowFill | None = None
    """Contents of packed rows; None where rows are cut from a stream."""


@dataclass(frozen=True, kw_only=True)
class TaskOverlap:
    """Items of a benchmark that are in the training text."""

    task: str
    items: int
    overlapped: int
    short: int
    """Items too short to be told from everyday phrases, among the first."""


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The data of a run."""

    recipe: str
    corpora: Sequence[CorpusFacts]
    mixture: Sequence[MixtureShare]
    duplicates: Duplicates
    overlaps: Sequence[TaskOverlap] | None
    """None where it was not searched."""


def write_data_page(facts: DataFacts, folder: Path, path: Path) -> Path:
    """Write the page about the run in a folder, whole or not at all; the path of the page."""
    corpora = [
        {
            "name": corpus.name,
            "facts": [
                corpus.source,
                *corpus.licenses,
                *_repeats(corpus.repeats),
                *([] if corpus.dropped else ["nothing was dropped"]),
            ],
            "dropped": [
                {
                    "key": f"{corpus.name}-dropped-{place}",
                    "reason": reason,
                    "count": f"{count:,}",
                    "samples": [one for one in corpus.samples if one.reason == reason],
                }
                for place, (reason, count) in enumerate(corpus.dropped.items())
            ],
            "examples": [(f"{count:,} times", text) for count, text in corpus.repeats.examples],
        }
        for corpus in facts.corpora
    ]
    overlaps = None if facts.overlaps is None else overlap_table(facts.overlaps)
    view = {
        "recipe": facts.recipe,
        "folder": folder.resolve().name,
        "tiles": _tiles(facts.corpora),
        "sizes": size_table(facts.corpora),
        "corpora": corpora,
        "charts": _lengths(facts.corpora),
        "mixture": mixture_table(facts.mixture),
        "duplicates": duplicate_table(facts.duplicates),
        "near": list(map(example_view, facts.duplicates.examples)),
        "searched": searched(facts.duplicates),
        "overlaps": overlaps,
    }
    write_text(path, render("data.html.jinja", view))
    return path


def size_table(corpora: Sequence[CorpusFacts]) -> Table:
    """Sizes by corpus and side."""
    rows = []
    for corpus in corpora:
        for side, counts in corpus.sides.items():
            kind = next((key for key in COUNTED if key in counts), "")
            text, tokens = counts.get("bytes"), counts["tokens"]
            rows.append(
                (
                    corpus.name,
                    {"train": "training", "heldout": "held out"}[side],
                    f"{counts[kind]:,} {kind}" if kind else "",
                    "" if text is None else size(text),
                    f"{tokens:,}",
                    f"{text / tokens:.3f}" if text and tokens else "",
                )
            )
    names = ("corpus", "side", "items", "text", "tokens", "bytes per token")
    return _table(names, rows, texts=2)


def mixture_table(mixture: Sequence[MixtureShare]) -> Table:
    """Tokens that phases read, by corpus: shares as the mixture asks for them beside those that came of it."""
    is_packed = any(one.row_fill for one in mixture)
    rows = [
        (
            one.phase,
            one.corpus,
            f"{one.asked:.2%}",
            "not trained yet" if one.share is None else f"{one.share:.2%}",
            f"{one.tokens:,}",
            f"{one.passes:,.2f}",
            *(_fill(one.row_fill) if is_packed else ()),
        )
        for one in mixture
    ]
    names = ["phase", "corpus", "asked", "read", "tokens", "passes"]
    return _table(names + (["filler", "documents cut"] if is_packed else []), rows, texts=2)


def _fill(fill: RowFill | None) -> tuple[str, str]:
    return ("", "") if fill is None else (f"{fill.filler:.2%}", f"{fill.documents_cut:,}")


def overlap_table(overlaps: Sequence[TaskOverlap]) -> Table:
    """Benchmarks by the items that are in the training text."""
    rows = [(one.task, f"{one.items:,}", f"{one.overlapped:,}", f"{one.short:,}") for one in overlaps]
    return _table(("task", "items", "in training text", "too short to tell"), rows, texts=1)


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> Table:
    """A table by rows, whose first columns are texts."""
    return Table(
        columns=[
            Column(name=name, cells=[row[place] for row in rows], is_text=place < texts)
            for place, name in enumerate(names)
        ]
    )


def _tiles(corpora: Sequence[CorpusFacts]) -> list[tuple[str, str, str]]:
    train = [corpus.sides["train"] for corpus in corpora]
    tokens = sum(side["tokens"] for side in train)
    text = sum(side.get("bytes", 0) for side in train)
    documents = sum(len(corpus.lengths) for corpus in corpora)
    again = sum(corpus.repeats.within for corpus in corpora)
    dropped = sum(sum(corpus.dropped.values()) for corpus in corpora)
    return [
        (number(tokens), "tokens", "to train on"),
        (size(text), "", "text of them"),
        (f"{documents:,}", "documents", "to train on"),
        (f"{again:,}", "duplicates", "equal an earlier document of their corpus"),
        (f"{dropped:,}", "dropped", "before anything was encoded"),
    ]


def _repeats(repeats: Repeats) -> list[str]:
    counts = {
        f"training documents equal an earlier one of this corpus ({number(repeats.tokens)} tokens)": repeats.within,
        "training documents are in another corpus, too": repeats.elsewhere,
        "held-out documents are in training text": repeats.heldout,
    }
    return [f"{count:,} {what}" for what, count in counts.items() if count] or ["no document is there twice"]


def _lengths(corpora: Sequence[CorpusFacts]) -> list[Chart]:
    """Histograms of documents over their lengths: by number, and by the tokens that they hold."""
    counted = [corpus for corpus in corpora if len(corpus.lengths)]
    if not counted:
        return []
    top = max(int(corpus.lengths.max()) for corpus in counted)
    edges = 2.0 ** np.arange(top.bit_length() + 1)  # from 1 to above the longest document
    return [
        Chart(
            key=key,
            title=title,
            x=Axis(label="tokens of a document", logarithmic=True),
            y=Axis(label="percent", from_zero=True),
            series=[
                Series(
                    name=f"{corpus.name}, median {int(np.median(corpus.lengths)):,}",
                    x=np.repeat(edges, 2)[1:-1].tolist(),
                    y=np.repeat(_shares(corpus.lengths, edges, by_tokens), 2).tolist(),
                    color=color,
                    tells_last=False,
                )
                for color, corpus in enumerate(counted)
            ],
        )
        for key, title, by_tokens in (
            ("documents-by-length", "Documents by length", False),
            ("tokens-by-length", "Tokens by length of their document", True),
        )
    ]


def _shares(lengths: np.ndarray, edges: np.ndarray, by_tokens: bool) -> np.ndarray:
    counts, _ = np.histogram(lengths, bins=edges, weights=lengths if by_tokens else None)
    return 100 * counts / max(1, counts.sum())
