"""Minimal pairs differ in one word, are the same for a seed, and balanced."""

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from lilliput.evals.load_tasks import TASKS
from lilliput.evals.minimal_pairs import PHENOMENA, minimal_pairs, write_pairs
from lilliput.evals.suites import GRAMMAR


@pytest.mark.parametrize("phenomenon", PHENOMENA)
def test_a_pair_is_two_sentences_that_differ_in_one_word(phenomenon: str) -> None:
    pairs = minimal_pairs(phenomenon)
    assert len(set(pairs)) == len(pairs) == 400
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for pair in pairs:
        good, bad = pair.good.split(), pair.bad.split()
        different = [(one, other) for one, other in zip(good, bad, strict=True) if one != other]
        assert len(different) == 1 and pair.good[0].isupper() and pair.good.endswith(".")
        right[different[0][0].strip(".").lower()] += 1
        wrong[different[0][1].strip(".").lower()] += 1
    assert minimal_pairs(phenomenon) == pairs != minimal_pairs(phenomenon, seed=1)
    # Whoever always takes one form, such as the shorter one, is right half of the time.
    shorter = sum((len(pair.good) < len(pair.bad)) - (len(pair.bad) < len(pair.good)) for pair in pairs)
    assert abs(shorter) <= 40
    assert all(abs(right[word] - wrong[word]) <= 40 for word in right | wrong)


def test_every_phenomenon_has_a_task_file_and_a_row(tmp_path: Path) -> None:
    assert [use.task for use in GRAMMAR.made] == [f"grammar_{phenomenon}" for phenomenon in PHENOMENA]
    for use in GRAMMAR.made:
        assert yaml.safe_load((TASKS / f"{use.task}.yaml").read_text())["task"] == use.task
    rows = [json.loads(line) for line in write_pairs("case", tmp_path / "case.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows[:4]] == [0, 1, 0, 1]
    assert [row["sentences"][row["label"]] for row in rows] == [pair.good for pair in minimal_pairs("case")]
