"""Batches that a step trains on: the same ones from a cursor on, however many ranks share them, and soon enough."""

import time
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import tiny
import torch
from train.test_loop import MACHINE, shards  # noqa: F401 (a fixture)

from lilliput.base.units import Tokens
from lilliput.data.batch import Cursor
from lilliput.data.mixture import Mixture
from lilliput.train.all_reduce import AllRanks
from lilliput.train.batches import BatchLoader
from lilliput.train.micro_batches import MicroBatches
from lilliput.train.rollback import Incidents

STEPS, ROWS, LENGTH = 1_000, 8, 32
PHASE = replace(
    tiny.pretraining(), length=LENGTH, batch_tokens=ROWS * LENGTH, tokens=Tokens((STEPS + 1) * ROWS * LENGTH)
)


def loader(count: int, rank: int, shards, folder: Path) -> BatchLoader:  # noqa: F811
    """What one of so many ranks reads with."""
    ranks = AllRanks.__new__(AllRanks)
    ranks.count, ranks.rank = count, rank
    sizes = MicroBatches(replace(MACHINE, rows=3), PHASE, folder, ranks, lambda line: None)
    return BatchLoader(PHASE, PHASE.data.open(shards), "cpu", ranks, Incidents(folder), sizes)


@pytest.mark.slow
@pytest.mark.parametrize("start", [0, 12_345 * (LENGTH - 1)])
def test_any_number_of_ranks_reads_the_same_thousand_batches_from_a_cursor(start: int, shards, tmp_path) -> None:  # noqa: F811
    found = []
    for count in (1, 2, 4):
        loaders = [loader(count, rank, shards, tmp_path) for rank in range(count)]
        cursor = Cursor(positions=(("texts", start),)) if start else Cursor()
        seen = []
        for step in range(STEPS):
            read = [one.read(step, 0, cursor) for one in loaders]
            assert len({one.after for one in read}) == 1 and len({one.denominator for one in read}) == 1
            batches = [batch for one in read for batch in one.batches]
            rows = torch.cat([batch.row for batch in batches])
            assert rows.tolist() == list(range(ROWS))
            seen.append(torch.cat([batch.tokens for batch in batches]))
            for one in loaders[::2]:
                one.prefetch(step + 1, 0, read[0].after, takes=lambda step, stage: True)
            cursor = read[0].after
        found.append((torch.stack(seen), cursor))
    assert all(torch.equal(tokens, found[0][0]) and cursor == found[0][1] for tokens, cursor in found)
    assert len({tuple(row) for row in chain(*found[0][0].tolist())}) > STEPS, "passes do not repeat rows"


def test_one_thread_reads_faster_than_the_fastest_trainer(shards) -> None:  # noqa: F811
    """SLM-10M's shape trains on 3.3 million tokens a second; one thread reads a multiple of that in processor time."""
    reader, cursor = Mixture(weights={"texts": 1.0}).open(shards), Cursor()
    _, cursor = reader.read(cursor, 32, 1_025)
    began = time.process_time()
    for _ in range(60):
        _, cursor = reader.read(cursor, 32, 1_025)
    assert 60 * 32 * 1_024 / (time.process_time() - began) > 3.3e6
