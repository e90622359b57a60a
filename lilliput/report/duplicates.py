"""Duplicates in the data of a run as its page and a terminal show them: counts, and near-duplicates side by side."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

from lilliput.base.text_units import size
from lilliput.report.table import Column, Table

EXCERPT = 300
"""Characters that are shown of a near-duplicate."""
_WORDS = re.compile(r"\s+|\S+")
_BEFORE = 60
"""Characters before the first difference that are shown."""


@dataclass(frozen=True, kw_only=True)
class DuplicateCount:
    """Documents that are in one place and in another as well."""

    documents: str
    """The first place: a corpus, or what is held out of it."""
    also_in: str
    equal: int
    near: int
    """Number of documents that nearly equal one there, among those that were searched, and equal none."""


@dataclass(frozen=True, kw_only=True)
class NearExample:
    """A near-duplicate and the document that it nearly equals."""

    documents: str
    also_in: str
    likeness: float
    texts: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class SearchedText:
    """Text of one side of a corpus that was searched for near-duplicates."""

    documents: str
    """Name of the place, as in the counts."""
    size: int
    """Characters."""
    is_all: bool


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Duplicates within corpora, between them, and between their sides."""

    counts: Sequence[DuplicateCount]
    examples: Sequence[NearExample]
    texts: Sequence[SearchedText]


def duplicate_table(duplicates: Duplicates) -> Table:
    """Numbers of duplicates by where they are."""
    counts = duplicates.counts
    return Table(
        columns=[
            Column(name="documents of", cells=[one.documents for one in counts], is_text=True),
            Column(name="also in", cells=[one.also_in for one in counts], is_text=True),
            Column(name="equal", cells=[f"{one.equal:,}" for one in counts]),
            Column(name="nearly equal", cells=[f"{one.near:,}" for one in counts]),
        ]
    )


def searched(duplicates: Duplicates) -> str:
    """Return in a sentence how much was searched for near-duplicates."""
    parts = [f"the first {size(one.size)} of {one.documents}" for one in duplicates.texts if not one.is_all]
    if not parts:
        return "All documents were searched for near-duplicates."
    whole = ", and all of the others" if len(parts) < len(duplicates.texts) else ""
    return f"Near-duplicates were searched for in {', '.join(parts)}{whole}."


def example_view(example: NearExample) -> dict[str, Any]:
    """An example as the page's template wants it."""
    where = example.documents if example.documents == example.also_in else f"{example.documents} and {example.also_in}"
    return {
        "title": f"{where}: {example.likeness:.0%} of the runs in common",
        "sides": [list(parts) for parts in _differences(*_from_difference(*example.texts))],
    }


def _from_difference(one: str, other: str) -> tuple[str, str]:
    """Two texts from a little before their first difference on."""
    first = next((place for place, (left, right) in enumerate(zip_longest(one, other)) if left != right), 0)
    begin = one.rfind(" ", 0, max(0, first - _BEFORE)) + 1
    return _excerpt(one, begin), _excerpt(other, begin)


def _excerpt(text: str, begin: int) -> str:
    """A part of a text that ends with a word."""
    part = text[begin:]
    if len(part) > EXCERPT:
        part = part[:EXCERPT].rsplit(" ", 1)[0] + " …"
    return f"… {part}" if begin else part


def _differences(one: str, other: str) -> Iterator[Iterator[tuple[str, bool]]]:
    """Two texts in parts, and whether the other one lacks a part."""
    words = _WORDS.findall(one), _WORDS.findall(other)
    steps = SequenceMatcher(None, *words, autojunk=False).get_opcodes()
    bounds = [(first, after) for _, first, after, _, _ in steps], [(first, after) for *_, first, after in steps]
    for own, places in zip(words, bounds, strict=True):
        parts = zip(steps, places, strict=True)
        yield (("".join(own[slice(*place)]), step[0] != "equal") for step, place in parts if place[0] < place[1])
