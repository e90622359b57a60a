"""Several text corpora read side by side, in fixed proportions: every stretch of the text is a sample of all.

Proportions are of bytes: texts are read before a tokenizer is there, which may yet be learned from them. Shares
of tokens differ from these as far as the bytes per token of the sources do. Who wants shares of tokens gives each
source a name of its own in a `Mixture`, which counts tokens.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from lilliput.data.documents import Corpus
from lilliput.data.resumable import Item, Offset, iterate_from


def interleaved(
    sources: Sequence[Corpus], weights: Sequence[float], after: Offset | None = None
) -> Iterator[tuple[int, Item, dict[str, Any]]]:
    """Yield the documents of all sources, each with the index of its source, and why filters dropped others.

    The next document is of the source that is furthest behind its share of the bytes, of the first where two are equal.
    One that ends before the others leaves them their proportions. Marks are `taken`, the bytes of each source so far,
    and `within`, the mark of each; reading on from one gives what reading without a stop would have given.

    Args:
        sources: which can be read from a mark on, where `after` is given.
        weights: proportions of UTF-8 bytes of text, one a source.
        after: the mark to go on from; None to begin.
    """
    taken = list(after["taken"]) if after else [0] * len(sources)
    within = list(after["within"]) if after else [None] * len(sources)
    items = [iterate_from(source, mark) for source, mark in zip(sources, within, strict=True)]
    left = list(range(len(sources)))
    while left:
        index = min(left, key=lambda one: taken[one] / weights[one])
        found = next(items[index], None)
        if found is None:
            left.remove(index)
            continue
        item, within[index] = found
        if not isinstance(item, str):
            taken[index] += len(item.text.encode("utf-8", "surrogatepass"))
        yield index, item, {"taken": list(taken), "within": list(within)}
