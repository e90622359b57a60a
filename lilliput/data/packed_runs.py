"""Rows of one size out of runs of tokens: best fit within a few thousand runs, so that a stream of any length packs.

Ding et al. 2024 (arXiv 2404.10830): documents that fit are never cut, longer ones are cut at the size of a row, and
what a row has left over is filled up. It is decided by the runs alone, whoever reads them from where.
"""

import numpy as np

from lilliput.data.packing import pack
from lilliput.data.permutation import Permutation

FILLER = -1
"""Begin of a run that only fills up a row."""


def packed_runs(begins: np.ndarray, sizes: np.ndarray, length: int, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Put runs into another order, in which every `length` tokens hold runs whole, or a part of a longer one.

    Args:
        begins: where each run begins, [N] int64.
        sizes: tokens of each, [N] int64, at least 1.
        length: tokens of a row.
        key: decides the order of the rows: packing puts long runs first.

    Returns:
        begins, `FILLER` where nothing is to be read, and sizes, [N'] int64; the sizes of a row add up to `length`.
    """
    counts = -(-sizes // length)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # of each part in its run
    begins = np.repeat(begins, counts) + number * length
    sizes = np.minimum(np.repeat(sizes, counts) - number * length, length)
    rows = pack(sizes.tolist(), length)
    order = Permutation(len(rows), key)(np.arange(len(rows)))
    places = [place for index in order.tolist() for place in (*rows[index], FILLER)]
    begins, sizes = np.append(begins, FILLER)[places], np.append(sizes, 0)[places]
    ends = np.flatnonzero(begins == FILLER)
    sizes[ends] = length - np.diff(np.cumsum(sizes)[ends], prepend=0)
    is_there = sizes > 0
    return begins[is_there], sizes[is_there]
