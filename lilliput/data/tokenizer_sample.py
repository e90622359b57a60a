"""The texts that a tokenizer learns from: of local files from all over them, of other corpora from the beginning."""

from collections.abc import Iterable, Iterator
from typing import Any

from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Filtered
from lilliput.data.documents import Corpus, Document
from lilliput.data.readers.formats import COMPRESSED
from lilliput.data.readers.paths import files_of
from lilliput.data.small_corpora import WithHeldOutEnds
from lilliput.data.split import HeldOut, fraction_of

PART = 65_536
"""Characters at most; of a longer text every part is drawn by itself, so that one book is sampled too."""
PARTS = 16
"""That a sample is made of at least."""
GROWS = 4
"""Approximate compression ratio of a text."""
PACKED = (*COMPRESSED, ".parquet")


def sampled(corpus: Corpus, split: HeldOut, size: int) -> Iterator[str]:
    """Texts of the training side of about so many bytes, or all that there is.

    Files are read in the order of their names: the first of them may be all of one kind. Therefore, where they hold
    more than is wanted, hashes draw texts, and parts of long ones, from all of them. A stream is read from its
    beginning, no further than needed.

    Args:
        corpus: its documents.
        split: what is held out of it.
        size: UTF-8 bytes of text.
    """
    left, share = size, min(1.0, size / max(1, _text_bytes(corpus) or size))
    part, first = max(1, min(PART, size // PARTS)), ""

    def drawn(document: Document) -> Iterable[str]:
        nonlocal first
        if split.is_heldout(document.group):
            return ()
        first = first or document.text[:size]
        return (document.text[:size],) if share == 1 else _drawn(document, share, part)

    for texts in map(iter, map(drawn, corpus.documents())):
        for text in texts:
            left -= len(text.encode("utf-8", "surrogatepass"))
            yield text
            del text  # it may be long, and the next one is read before this name is given away
        if left <= 0:
            return
    if left == size and first:  # nothing was drawn of few parts
        yield first


def _drawn(document: Document, share: float, part: int) -> Iterator[str]:
    for start in range(0, len(document.text), part):
        if fraction_of(f"sample\0{document.id}\0{start}") < share:
            yield document.text[start : start + part]


def _text_bytes(corpus: Any) -> int | None:
    """About how much text local files hold; None of another corpus."""
    while isinstance(corpus, Filtered | WithHeldOutEnds):
        corpus = corpus.source
    if not isinstance(corpus, TextFiles):
        return None
    files = ((path, path.stat().st_size) for path in files_of(corpus.paths))
    return sum(size * (GROWS if path.suffix.lower() in PACKED else 1) for path, size in files)
