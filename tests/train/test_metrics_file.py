"""Metrics of ranks that take steps of their own, merged into the file of each."""

import json

from lilliput.train.metrics_file import merged_metrics


def file(*lines):
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


FIRST = file(
    {"step": 1, "loss": 3.0, "bytes_sent": 5}, {"step": 3, "loss": 2.0}, {"step": 3, "heldout": {"texts": 1.0}}
)
SECOND = file({"step": 2, "loss": 2.5, "bytes_sent": 7, "bytes_received": 9}, {"step": 3, "heldout": {"texts": 1.1}})


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_each_step_is_there_once_and_measurements_are_the_first_ranks():
    for own in (0, 1):
        merged = lines(merged_metrics([FIRST, SECOND], own))
        assert [(line["step"], "heldout" in line) for line in merged] == [(1, False), (2, False), (3, False), (3, True)]
        assert merged[-1]["heldout"] == {"texts": 1.0}


def test_bytes_are_those_of_the_rank_whose_file_it_is():
    sent = [[line.get("bytes_sent") for line in lines(merged_metrics([FIRST, SECOND], own))] for own in (0, 1)]
    assert sent == [[5, None, None, None], [None, 7, None, None]]


def test_a_file_that_was_merged_before_stays_as_it_is():
    merged = merged_metrics([FIRST, SECOND], 0)
    assert merged_metrics([merged, SECOND], 0) == merged
    assert merged_metrics([merged, SECOND], 1) == merged_metrics([FIRST, SECOND], 1)
