"""Curation: a list of filters, each keeps a document (perhaps changed) or names the reason it drops it."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from lilliput.base.errors import RecipeError
from lilliput.data.documents import Corpus, Document, documents_of
from lilliput.data.dropped import Dropped
from lilliput.data.language import is_in
from lilliput.data.resumable import FractionRead, Item, Offset, fraction_read, is_seekable, iterate_from

FilterResult = Document | str
"""The document to keep, or the reason for dropping it."""


class Filter(Protocol):
    """One filter; a frozen keyword-only spec, so what it remembers lives in what `begin` returns.

    A filter that remembers nothing, and judges each document alone, may say so: `remembers: ClassVar[bool] = False`.
    """

    name: ClassVar[str]

    def begin(self) -> Callable[[Document], FilterResult]:
        """The filter as a function for one run over documents in order, remembering nothing yet."""
        ...


@runtime_checkable
class KeyedFilter(Protocol):
    """A filter that drops a document which has a key in common with any document before it.

    Keys can be made by many processes, each of a part of the corpus, and compared afterwards.
    """

    name: ClassVar[str]
    reason: ClassVar[str]
    """Its only reason."""

    def keys_of(self, texts: Iterable[str]) -> Iterator[np.ndarray | None]:
        """Yield the 64-bit keys of each text, as many of every one; None of a text that is never dropped."""
        ...


class FilterChain:
    """Filters in order, and the count of what became of every document.

    After a run, `counts` holds "kept" and one "<filter>: <reason>" for each way documents were dropped.
    """

    def __init__(self, filters: tuple[Filter, ...]):
        self.filters = filters
        self.counts: Counter[str] = Counter()

    def run(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Yield what every filter keeps; each run starts with empty memories and counts."""
        self.counts.clear()
        judge = self.begin()
        for document in documents:
            verdict = judge(document)
            if isinstance(verdict, str):
                self.counts[verdict] += 1
            else:
                self.counts["kept"] += 1
                yield verdict

    def begin(self) -> Callable[[Document], FilterResult]:
        """All filters as one, remembering nothing yet, whose reasons begin with the name of a filter."""
        steps = [(filter_.name, filter_.begin()) for filter_ in self.filters]

        def judge(document: Document) -> FilterResult:
            for name, step in steps:
                verdict = step(document)
                if isinstance(verdict, str):
                    return f"{name}: {verdict}"
                document = verdict
            return document

        return judge


@dataclass(frozen=True, kw_only=True)
class Filtered:
    """A corpus seen through filters."""

    source: Corpus
    filters: tuple[Filter, ...]

    def identity(self) -> Any:
        """Return what the source's documents depend on."""
        return self.source.identity()

    @property
    def is_seekable(self) -> bool:
        """Return whether the source does, and no filter needs to have seen earlier documents."""
        return is_seekable(self.source) and not any(getattr(filter_, "remembers", True) for filter_ in self.filters)

    def documents(self) -> Iterator[Document]:
        """The source's documents that the filters keep, in its order."""
        return documents_of(self.iterate_from())

    def iterate_from(self, after: Offset | None = None) -> Iterator[tuple[Item, Offset]]:
        """The same, and the reasons for dropping the others, with the marks of the source."""
        judge = FilterChain(self.filters).begin()
        for item, mark in iterate_from(self.source, after):
            yield item if isinstance(item, str) else _told(judge(item), item), mark

    def fraction_read(self) -> FractionRead:
        """That of the source."""
        return fraction_read(self.source)


@dataclass(frozen=True, kw_only=True)
class Clean:
    """Unicode NFC, plain newlines, no trailing spaces or control characters, at most two blank lines in a row."""

    name: ClassVar[str] = "clean"
    remembers: ClassVar[bool] = False

    def begin(self) -> Callable[[Document], FilterResult]:
        """A function of one document that remembers nothing."""
        return _clean


@dataclass(frozen=True, kw_only=True)
class Length:
    """Documents of at least and at most so many characters."""

    name: ClassVar[str] = "length"
    remembers: ClassVar[bool] = False

    at_least: int = 1
    at_most: int = 10_000_000

    def begin(self) -> Callable[[Document], FilterResult]:
        """A function of one document that remembers nothing."""

        def step(document: Document) -> FilterResult:
            if len(document.text) < self.at_least:
                return "too short"
            return "too long" if len(document.text) > self.at_most else document

        return step


@dataclass(frozen=True, kw_only=True)
class MostlyText:
    """Documents that are mostly words: letters of any script and white space, not tables, digits and signs."""

    name: ClassVar[str] = "mostly text"
    remembers: ClassVar[bool] = False

    letters: float = 0.6
    """Least share of letters and white space among the characters."""

    def begin(self) -> Callable[[Document], FilterResult]:
        """A function of one document that remembers nothing."""

        def step(document: Document) -> FilterResult:
            others = _without(_WORDS, document.text)
            words = sum(map(str.isalpha, others)) + sum(map(str.isspace, others))
            few = words + len(document.text) - len(others) < self.letters * len(document.text)
            return "too few letters" if few else document

        return step


@dataclass(frozen=True, kw_only=True)
class InLanguage:
    """Documents in some languages; those whose language cannot be told stay."""

    name: ClassVar[str] = "language"
    remembers: ClassVar[bool] = False

    languages: tuple[str, ...]
    """ISO 639-1 codes."""

    def __post_init__(self) -> None:
        if not self.languages:
            raise RecipeError("no language is named", where="InLanguage.languages", hint='give codes: ("en",)')

    def begin(self) -> Callable[[Document], FilterResult]:
        """A function of one document that remembers nothing."""
        return lambda document: document if is_in(document.text, self.languages) else "another language"


@dataclass(frozen=True, kw_only=True)
class Exact:
    """Documents whose text, ignoring case and white space, was not there before."""

    name: ClassVar[str] = "exact"
    reason: ClassVar[str] = "duplicate"

    def begin(self) -> Callable[[Document], FilterResult]:
        """A function that remembers the texts it has met."""
        seen: set[bytes] = set()

        def step(document: Document) -> FilterResult:
            key = _key(document.text)
            if key in seen:
                return self.reason
            seen.add(key)
            return document

        return step

    def keys_of(self, texts: Iterable[str]) -> Iterator[np.ndarray | None]:
        """Yield a hash of each text."""
        return (np.frombuffer(_key(text), dtype="<u8", count=1) for text in texts)


@dataclass(frozen=True, kw_only=True)
class SeenParagraphs:
    """Takes out paragraphs that an earlier document had, and the document when little of it is new."""

    name: ClassVar[str] = "seen paragraphs"

    share: float = 0.5
    """The document is dropped when more than this share of its characters went."""
    at_least: int = 60
    """Shorter paragraphs, in normalised characters, may repeat: headings, section names."""

    def begin(self) -> Callable[[Document], FilterResult]:
        """A function that remembers the paragraphs of the documents it kept."""
        seen: set[bytes] = set()

        def step(document: Document) -> FilterResult:
            kept, own, gone = [], [], 0
            for paragraph in _PARAGRAPHS.split(document.text):
                key = _key(paragraph) if len(_normal(paragraph)) >= self.at_least else None
                if key in seen:
                    gone += len(paragraph)
                    continue
                kept.append(paragraph)
                if key is not None:
                    own.append(key)
            if gone > self.share * len(document.text):
                return "mostly seen"
            seen.update(own)
            return document if not gone else replace(document, text="\n\n".join(kept))

        return step


_PARAGRAPHS = re.compile(r"\n(?:[ \t]*\n)+")
_BLANK_LINES = re.compile(r"\n{4,}")
_TRAILING = re.compile(r"(?<![^\S\n])[^\S\n]++$", re.MULTILINE)  # each run is looked at once, however long it is
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2060\ufeff\ufffe\uffff\ud800-\udfff]")
_WORDS = bytes(code for code in range(128) if chr(code).isalpha() or chr(code).isspace())
_PLAIN = bytes((*b"\t\n", *range(0x20, 0x7F)))
"""Characters that stay as they are wherever they stand, but for blanks and line breaks."""


def _without(some: bytes, text: str) -> str:
    """A text without some characters of ASCII; twenty times as fast as a look at each by an expression."""
    return text.encode("utf-8", "surrogatepass").translate(None, some).decode("utf-8", "surrogatepass")


_MANY = 65
_MARKS = re.compile(rf"[^\x00-\u02ff\w\s]{{{_MANY},}}")
"""Combining marks in a row, or other signs: the library takes the square of their number to put them in order."""


def _ordered(marks: re.Match[str]) -> str:
    """The same marks in their canonical order."""
    parts = "".join(unicodedata.normalize("NFD", mark) for mark in marks[0])
    runs = groupby(parts, key=lambda part: unicodedata.combining(part) > 0)
    return "".join("".join(sorted(run, key=unicodedata.combining)) for _, run in runs)


def _clean(document: Document) -> FilterResult:
    text = document.text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n\n")
    if odd := _without(_PLAIN, text):
        if _CONTROL.search(odd):
            text = _CONTROL.sub("", text)
        if len(odd) >= _MANY:
            text = _MARKS.sub(_ordered, text)
        text = unicodedata.normalize("NFC", text)
    if " \n" in text or "\t\n" in text or text[-1:] in (" ", "\t") or any(map(str.isspace, odd)):
        text = _TRAILING.sub("", text)
    if "\n\n\n\n" in text:
        text = _BLANK_LINES.sub("\n\n\n", text)
    text = text.strip("\n")
    if not text.strip():
        return "empty"
    return document if text == document.text else replace(document, text=text)


def _told(verdict: FilterResult, document: Document) -> FilterResult:
    """A verdict that holds the beginning of what it drops."""
    return Dropped.of(verdict, document.id, document.text) if isinstance(verdict, str) else verdict


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())


def _key(text: str) -> bytes:
    """128 bits of the normalised text: small to remember, and no two texts of a corpus will ever share them."""
    return hashlib.blake2b(_normal(text).encode("utf-8", "surrogatepass"), digest_size=16).digest()
