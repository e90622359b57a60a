"""The part of a corpus that one of several tasks reads: files in a row, so that the shards in order are the corpus."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Filter, Filtered
from lilliput.data.corpora.stand_in import StandIn
from lilliput.data.readers.paths import found_files
from lilliput.data.resumable import Item, iterate_from


def innermost(corpus: Any) -> tuple[Any, tuple[Filter, ...]]:
    """The corpus within filters, and all filters in the order in which a document meets them."""
    filters: tuple[Filter, ...] = ()
    while isinstance(corpus, Filtered | StandIn):
        filters = (corpus.filters if isinstance(corpus, Filtered) else ()) + filters
        corpus = corpus.source
    return corpus, filters


def most_tasks(source: Any) -> int:
    """Return how many tasks can share a corpus: one a local file; others are read by one."""
    return sum(1 for _ in found_files(source.paths)) if isinstance(source, TextFiles) else 1


def task_items(source: Any, rank: int, tasks: int) -> Iterator[Item]:
    """The items of a corpus that the task of a rank reads: about as many bytes for each."""
    if not isinstance(source, TextFiles):
        return (item for item, _ in iterate_from(source)) if rank == 0 else iter(())
    ends = np.cumsum([found.path.stat().st_size for found in found_files(source.paths)])
    # A file goes to the task in whose share of the bytes its middle lies.
    middles = ends - np.diff(ends, prepend=0) / 2
    owners = np.minimum(tasks - 1, (middles * tasks / max(1, ends[-1])).astype(int))
    files = np.flatnonzero(owners == rank)
    return _of_files(source, int(files[0]), int(files[-1])) if len(files) else iter(())


def _of_files(source: TextFiles, first: int, last: int) -> Iterator[Item]:
    for item, mark in source.iterate_from([first, 0, 0.0]):
        if mark[0] > last:
            return
        yield item
