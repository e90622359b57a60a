"""Scores that no items can give, and standard errors and averages of other scores, are named."""

import json
from dataclasses import asdict

import pytest

from lilliput.base.errors import DataError
from lilliput.evals.averages import averaged
from lilliput.evals.recount import contradictions, recounted
from lilliput.evals.score import Score, mean_stderr
from lilliput.evals.suites import OPEN_SLM

RIGHT = {"hellaswag": (2_664, 10_042), "arc_easy": (724, 2_376), "arc_challenge": (293, 1_172), "piqa": (936, 1_838)}


def evaluation():
    uses = {use.task: use for use in OPEN_SLM.tasks}
    scores = {}
    for task, (right, items) in RIGHT.items():
        stderr = mean_stderr([1.0] * right + [0.0] * (items - right))
        scores[task, "acc_norm"] = Score(task=uses[task].display, metric="acc_norm", value=right / items, stderr=stderr,
                                         chance=uses[task].chance, items=items, higher_is_better=True)  # fmt: skip
    averages = [found for average in OPEN_SLM.averages if (found := averaged(average, scores))]
    plain = {"scores": [asdict(score) for score in scores.values()], "averages": [asdict(one) for one in averages]}
    return json.loads(json.dumps(plain))


def test_what_was_measured_contradicts_nothing():
    assert contradictions(evaluation(), OPEN_SLM) == []


@pytest.mark.parametrize(
    ("part", "index", "key", "value", "said"),
    [
        ("scores", 0, "value", 0.26530, "no share of 10,042 items"),
        ("scores", 1, "value", 725 / 2_376, "standard error"),
        ("scores", 2, "stderr", 0.01, "293 of 1,172 give 0.012"),
        ("scores", 3, "items", 1_267, "PIQA (acc_norm)"),
        ("averages", 0, "value", 0.36, "value of the average headline is 0.360000"),
        ("averages", 0, "stderr", 0.001, "stderr of the average headline"),
        ("averages", 0, "name", "avg_slm", "is none that suite 'open-slm' makes"),
    ],
)
def test_a_contradiction_is_named(part, index, key, value, said):
    changed = evaluation()
    changed[part][index][key] = value
    assert any(said in one for one in contradictions(changed, OPEN_SLM))


def test_scores_are_counted_again_from_their_items(tmp_path):
    found, file = evaluation(), tmp_path / "items.jsonl"
    rows = [
        {"task": task, "doc_id": number, "acc_norm": float(number < right)}
        for task, (right, items) in RIGHT.items()
        for number in range(items)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert recounted(found, OPEN_SLM, file) == (len(rows), [])
    rows[0]["acc_norm"] = 0.0
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[:-1]))
    _, said = recounted(found, OPEN_SLM, file)
    assert len(said) == 3 and said[0].startswith("HellaSwag (acc_norm) is 0.26") and "1,838 items" in said[1]
    file.write_text("{")
    with pytest.raises(DataError, match="damaged"):
        recounted(found, OPEN_SLM, file)
