"""The part of a corpus that one of several tasks reads: files in a row, so that the shards in order are the corpus.

Of local files tasks read about as many bytes each, of Parquet files on the hub as many files.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Filter, Filtered
from lilliput.data.corpora.hub import HubText, Share
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


def file_rows(source: Any) -> list[int]:
    """Return the rows of each file of a corpus of the hub that tasks can share; nothing of other corpora.

    Raises:
        DataError: the hub is out of reach, or the dataset not there.
    """
    return source.file_rows() if isinstance(source, HubText) else []


def most_tasks(source: Any, rows: Sequence[int]) -> int:
    """Return how many tasks can share a corpus: one a file of those that can; others are read by one.

    Args:
        source: the corpus.
        rows: its `file_rows`.
    """
    return sum(1 for _ in found_files(source.paths)) if isinstance(source, TextFiles) else max(1, len(rows))


def task_items(source: Any, rank: int, tasks: int, rows: Sequence[int] = ()) -> Iterator[Item]:
    """The items of a corpus that the task of a rank reads.

    Args:
        source: the corpus.
        rank: of the task, from 0.
        tasks: that share it.
        rows: its `file_rows`.
    """
    if isinstance(source, HubText) and rows:
        share = Share(rank=rank, tasks=tasks, rows=list(rows))
        return (item for item, _ in source.iterate_from(share=share))
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
