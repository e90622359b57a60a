"""What the record of a phase says of its text and of what its layers processed of it."""

import pytest
from train.test_bags import phase_of
from train.test_loop import shards, train  # noqa: F401, shards is a fixture

from lilliput.base.files import write_text
from lilliput.base.run_folder import RunFolder
from lilliput.objectives.next_token import NextToken
from lilliput.run.phase_record import phase_record
from lilliput.train.phase import Stage

PART = "phases/00-pretrain"
ROWS = 4 * 32
"""Positions of a step."""


@pytest.mark.parametrize(
    ("bags", "read", "left"),
    [
        ((4, 2, 1), {"tokens": 28 * ROWS, "positions": 12 * ROWS}, {"tokens": 20 * ROWS, "positions": 6 * ROWS}),
        ((1, 1, 1), {"tokens": 12 * ROWS}, {"tokens": 6 * ROWS}),
    ],
    ids=["bags", "single tokens"],
)
def test_positions_are_recorded_where_they_are_not_as_many_as_tokens(shards, tmp_path, bags, read, left):  # noqa: F811
    stages = tuple(Stage(share=1 / 3, objective=NextToken(bag=bag)) for bag in bags)
    train(shards, tmp_path / "trained", phase=phase_of(stages))
    metrics = (tmp_path / "trained" / "metrics.jsonl").read_text()
    with RunFolder(tmp_path / "run") as run:
        run.cached(PART, {}, lambda folder: write_text(folder / "metrics.jsonl", metrics) or {})
        whole, resumed = phase_record(run, PART, None), phase_record(run, PART, 6)
    counts = ("tokens", "positions")
    assert {key: whole[key] for key in counts if key in whole} == read
    assert {key: resumed["resumed_at"][key] for key in counts if key in resumed["resumed_at"]} == left
    assert {key: resumed[key] for key in counts if key in resumed} == read
