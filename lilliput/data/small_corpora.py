"""Few documents, or few that are much of all: what is held out of them, where a hash may well hold out none of it.

Of each text its last part, or of texts too short for that, and of conversations, whole groups, at least one. Where
there are many, but some of them are large, the last part of each large one, and of the others those that the hash says.
"""

import unicodedata
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, ClassVar, Literal

from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Filtered
from lilliput.data.documents import Corpus, Document, documents_of
from lilliput.data.formats import format_of
from lilliput.data.readers.formats import holds_rows
from lilliput.data.readers.paths import files_of
from lilliput.data.resumable import FractionRead, Item, Offset, fraction_read, iterate_from
from lilliput.data.split import HeldOut, Split

Way = Literal["groups", "ends", "lowest", "large"]
"""Way to choose a side: by the hash of each group, the end of each text, the groups of the lowest hashes; or by the
hash of each group and the ends of large texts."""

ENOUGH = 5
"""Documents that a hash should be expected to hold out: the chance that it holds out none is below 1% then."""
MOST = 1_000
"""Documents that are looked at to tell whether there are few."""
LEAST_ON_AVERAGE, LEAST = 200, 16
"""Characters of the ends of texts: shorter ones say little about a model, so that whole texts are held out instead."""

_BEGINNING, _END = "\0beginning", "\0end"
"""Groups of the parts of a text that is cut in two; no other document is in a group of such a name."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Extent of a corpus, counted in its first `MOST` documents or conversations."""

    documents: int
    groups: int
    """Number of groups with any text."""
    characters: int
    largest: float = 0.0
    """Share of the local text files that the largest of them has."""

    def way(self, split: Split, *, can_cut: bool) -> Way:
        """Return how a split should hold out its share of it, where the end of an item can be held out alone and where
        not.
        """
        is_few = self.documents < MOST and self.documents * split.share < ENOUGH
        if not is_few or not 0 < split.share < 1:
            return "large" if can_cut and 0 < split.share < min(1.0, self.largest) else "groups"
        if not can_cut:
            return "lowest" if self.groups > 1 else "groups"
        ends = split.share * self.characters / max(1, self.documents)
        return "ends" if ends >= LEAST_ON_AVERAGE or self.groups < 2 else "lowest"


def extent(corpus: Any) -> Extent:
    """Return how much there is of a corpus; reads no more than its first `MOST` items."""
    format = format_of(corpus)
    groups: set[str] = set()
    documents = characters = 0
    for item in islice(format.items(corpus), MOST):
        documents, characters = documents + 1, characters + format.characters(item)
        groups |= {item.group} if format.characters(item) else set()
    sizes = _text_files(corpus)
    largest = max(sizes, default=0) / max(1, sum(sizes))
    return Extent(documents=documents, groups=len(groups), characters=characters, largest=largest)


def _text_files(corpus: Any) -> list[int]:
    """Bytes of every local file, where each of them is a text; none of another corpus."""
    while isinstance(corpus, Filtered):
        corpus = corpus.source
    if not isinstance(corpus, TextFiles):
        return []
    files = files_of(corpus.paths)
    return [] if any(map(holds_rows, files)) else [path.stat().st_size for path in files]


@dataclass(frozen=True, kw_only=True)
class Ends:
    """The ends of `WithHeldOutEnds` texts are held out."""

    share: float

    def is_heldout(self, group: str) -> bool:
        """Return whether it is the group of the ends."""
        return group == _END


@dataclass(frozen=True, kw_only=True)
class LargeEnds:
    """The ends of large `WithHeldOutEnds` texts are held out, and of the others those that a split says."""

    split: Split

    def is_heldout(self, group: str) -> bool:
        """Return whether it is the group of the ends, or one that the split holds out."""
        return group == _END or (group != _BEGINNING and self.split.is_heldout(group))


@dataclass(frozen=True, kw_only=True)
class Lowest:
    """Some groups are held out, those whose names have the lowest hashes."""

    groups: tuple[str, ...]

    def is_heldout(self, group: str) -> bool:
        """Return whether it is one of them."""
        return group in self.groups


def lowest(corpus: Any, split: Split) -> Lowest:
    """The share of a split of the groups of a corpus of few, but at least one of them, and not all."""
    groups = sorted(groups_with_text(corpus), key=split.fraction)
    count = min(max(1, round(split.share * len(groups))), len(groups) - 1)
    return Lowest(groups=tuple(sorted(groups[:count])))


def groups_with_text(corpus: Any) -> set[str]:
    """The groups that have any text; reads the whole corpus."""
    format = format_of(corpus)
    return {item.group for item in format.items(corpus) if format.characters(item)}


def sides(corpus: Any, split: Split, way: Way) -> tuple[Any, HeldOut]:
    """A corpus as it is to be encoded, and what says which of its groups are held out."""
    match way:
        case "ends":
            return WithHeldOutEnds(source=corpus, share=split.share), Ends(share=split.share)
        case "lowest":
            return corpus, lowest(corpus, split)
        case "large":
            least = round(split.share * sum(_text_files(corpus)))
            return WithHeldOutEnds(source=corpus, share=split.share, least=least), LargeEnds(split=split)
    return corpus, split


@dataclass(frozen=True, kw_only=True)
class WithHeldOutEnds:
    """A corpus whose texts are cut in two, near so large a share from their ends; what is too short stays whole."""

    source: Corpus
    share: float
    least: int = 0
    """UTF-8 bytes of a text that is cut; smaller ones stay in their own groups."""
    is_seekable: ClassVar[bool] = False  # an offset would have to say which part is next

    def identity(self) -> Any:
        """Return what the source's documents depend on."""
        return self.source.identity()

    def documents(self) -> Iterator[Document]:
        """The parts of the source's documents, in its order."""
        return documents_of(self.iterate_from())

    def iterate_from(self, after: Offset | None = None) -> Iterator[tuple[Item, Offset]]:
        """The same, and the reasons for which filters dropped others, with the marks of the source."""
        for item, mark in iterate_from(self.source, after):
            if isinstance(item, str) or (self.least and len(item.text.encode("utf-8", "surrogatepass")) < self.least):
                yield item, mark
                continue
            parts = self._parts(item)
            del item  # a text of many megabytes is not to be kept beside its parts, nor these beside the next text
            while parts:
                yield parts.popleft(), mark

    def fraction_read(self) -> FractionRead:
        """That of the source."""
        return fraction_read(self.source)

    def _parts(self, document: Document) -> deque[Document]:
        boundary = cut(document.text, self.share)
        parts = deque([replace(document, text=document.text[:boundary], group=_BEGINNING)])
        if end := document.text[boundary:]:
            parts.append(Document(end, f"{document.id} (its end)", _END))
        return parts


def cut(text: str, share: float) -> int:
    """Return where the last `share` of a text begins: after a line, else a blank, that is near; its length if it is
    short.
    """
    first, length = 0, len(text)
    while length and text[length - 1].isspace():  # strip() would copy a text of many megabytes
        length -= 1
    while first < length and text[first].isspace():
        first += 1
    boundary = round((1 - share) * length)
    size = length - boundary
    if size < LEAST or boundary <= first:
        return len(text)
    for mark, most in (("\n", size // 2), (" ", size - 1)):
        before = text.rfind(mark, max(0, boundary - most), boundary) + 1
        after = text.find(mark, boundary, boundary + most) + 1
        near = [found for found in (before, after) if found > first]
        if near:
            return min(near, key=lambda found: abs(found - boundary))
    while boundary < length and _is_within(text, boundary):
        boundary += 1
    return boundary if boundary < length else len(text)


def _is_within(text: str, index: int) -> bool:
    """Return whether what is before an index and what is after it are one character to whoever reads it."""
    before, after = text[index - 1], text[index]
    is_pair = "\ud800" <= before <= "\udbff" and "\udc00" <= after <= "\udfff"
    return is_pair or unicodedata.combining(after) > 0
