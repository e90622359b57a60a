"""Local files give the requests, log-likelihoods and predictions of the harness's own run of its own tasks."""

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_questions
from tiny_releases import RELEASES, awake, tokenizer

from lilliput.base.errors import DataError, RecipeError
from lilliput.evals import evaluation
from lilliput.evals.evaluation import Answered, Evaluation
from lilliput.evals.local_files import FILES
from lilliput.evals.question_files import Folder, Hub
from lilliput.evals.run_suite import evaluate_by_name
from lilliput.evals.suites import MTLM, OPEN_SLM, TaskUse
from lilliput.publish.export import Generation, export
from lilliput.run.model_code import model_to_score

pytestmark = pytest.mark.slow

# The twelve of the MTLM card include all of open-slm but PIQA.
USES = {use.task: use for use in (*MTLM.tasks, *MTLM.optional, *OPEN_SLM.tasks)}
LONG = 2048
"""Tokens; the tokenizer of the tiny releases makes one of nearly every byte."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec, layout = RELEASES["qwen3"]
    folder = tmp_path_factory.mktemp("model")
    export(
        awake(spec),
        tokenizer(),
        folder,
        layout=replace(layout, context=LONG),
        dtype="F32",
        generation=Generation(),
        chat_template=None,
    )
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which `datasets` finds what tasks name before it asks the network."""
    import datasets.config

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield tiny_questions.write_hub(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="module")
def reference(model: Path, hub: Path) -> dict[str, Any]:
    """What `lm_eval` itself says of the tasks as it ships them, unchanged."""
    import lm_eval
    import lm_eval.tasks
    from lm_eval.models.huggingface import HFLM

    shipped = Path(lm_eval.tasks.__file__).parent
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(hub)
        folders = sorted({shipped / str(use.shipped) for use in USES.values()})
        manager = lm_eval.tasks.TaskManager(include_path=folders, include_defaults=False)
        wrapper: Any = HFLM
        harness = wrapper(str(model), dtype="float32", softmax_dtype="float32", batch_size=16, device="cpu")
        # One task at a time, as we do: rows of other tasks in a batch change the last bits of a float.
        return {
            task: lm_eval.simple_evaluate(harness, tasks=[task], task_manager=manager, bootstrap_iters=0)
            for task in USES
        }


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_questions.write_folder(tmp_path_factory.mktemp("local") / "eval")


Ran = tuple[Evaluation, dict[str, list[dict[str, Any]]], dict[str, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def ours(model: Path, questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Both suites, the harness's samples, and our records of them."""
    samples: dict[str, list[dict[str, Any]]] = {}
    records: dict[str, list[dict[str, Any]]] = {}

    def keep(answered: list[Answered], path: Path) -> None:
        samples.update({one.use.task: one.answer["samples"][one.use.task] for one in answered})
        evaluation.write_records(answered, path)

    scores = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lilliput.evals.harness.write_records", keep)
        for suite, tasks in (("mtlm", ()), ("open-slm", ("piqa",))):
            path = tmp_path_factory.mktemp("records") / "records.jsonl"
            found = evaluate_by_name(model, suite, Folder(questions), tasks=tasks, records=path)
            scores += found.scores
            for line in path.read_text().splitlines():
                record = json.loads(line)
                records.setdefault(record["task"], []).append(record)
    return Evaluation(scores=tuple(scores), versions=found.versions, model_code=found.model_code), samples, records


@pytest.mark.parametrize("task", USES)
def test_every_request_and_answer_is_that_of_the_harness_itself(
    task: str, ours: Ran, reference: dict[str, Any]
) -> None:
    mine, theirs = ours[1][task], reference[task]["samples"][task]
    assert len(mine) == len(theirs) == tiny_questions.COUNT
    for one, other in zip(mine, theirs, strict=True):
        assert one["doc_id"] == other["doc_id"]
        assert one["arguments"] == other["arguments"]
        assert one["filtered_resps"] == other["filtered_resps"]
        assert one["target"] == other["target"]
        for metric in other["metrics"]:
            assert one[metric] == other[metric]


@pytest.mark.parametrize("use", USES.values(), ids=list(USES))
def test_scores_and_their_standard_errors_are_those_of_the_harness(
    use: TaskUse, ours: Ran, reference: dict[str, Any]
) -> None:
    found = {score.metric: score for score in ours[0].scores if score.task == use.display}
    assert set(found) == set(use.metrics)
    for metric, score in found.items():
        assert score.value == pytest.approx(reference[use.task]["results"][use.task][f"{metric},none"], rel=1e-12)
        assert score.items == tiny_questions.COUNT
        shares = [float(sample[metric]) for sample in reference[use.task]["samples"][use.task]]
        mean = sum(shares) / len(shares)
        spread = sum((share - mean) ** 2 for share in shares) / (len(shares) - 1)
        stderr = (spread / len(shares)) ** 0.5
        assert (score.stderr or 0.0) == pytest.approx(stderr) and (score.stderr is None) == (len(set(shares)) == 1)


@pytest.mark.parametrize("task", USES)
def test_records_hold_what_is_needed_to_compare_item_by_item(task: str, ours: Ran, reference: dict[str, Any]) -> None:
    for record, sample in zip(ours[2][task], reference[task]["samples"][task], strict=True):
        totals = [total for total, _ in sample["filtered_resps"]]
        assert record["doc_id"] == sample["doc_id"] and record["log_likelihoods"] == totals
        assert record["prediction"] == totals.index(max(totals))
        assert record["acc"] == float(sample["acc"])
        if "acc_norm" in sample["metrics"] and isinstance(sample["target"], int):
            assert (record["prediction_norm"] == sample["target"]) == bool(record["acc_norm"])


@pytest.mark.parametrize("suite", ["mtlm", "open-slm"])
def test_our_own_forward_pass_predicts_the_same(
    suite: str, model: Path, questions: Path, ours: Ran, tmp_path: Path
) -> None:
    path = tmp_path / "records.jsonl"
    subject = model_to_score(model)
    found = evaluate_by_name(
        subject, suite, Folder(questions), tasks=() if suite == "mtlm" else ("piqa",), records=path
    )
    assert (found.model_code, ours[0].model_code) == ("lilliput", "transformers")
    values = {(score.task, score.metric): score.value for score in ours[0].scores}
    for score in found.scores:
        assert score.value == pytest.approx(values[score.task, score.metric], abs=1e-5)
    seen: dict[str, int] = {}
    for record in map(json.loads, path.read_text().splitlines()):
        place = seen[record["task"]] = seen.get(record["task"], -1) + 1
        other = ours[2][record["task"]][place]
        assert record["log_likelihoods"] == pytest.approx(other["log_likelihoods"], abs=1e-3)
        assert {name: value for name, value in record.items() if name.startswith("pred")} == {
            name: value for name, value in other.items() if name.startswith("pred")
        }


def test_questions_of_the_hub_are_known_again_in_a_folder(
    model: Path, hub: Path, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hub)
    asked = evaluate_by_name(model, "mtlm", Hub(), limit=2).questions
    known = Folder(questions).identity((*MTLM.tasks, *MTLM.optional))
    # Rows of WSC273 with the names in the pronoun's place do not say which pronoun it was.
    assert asked.pop("wsc273") != known.pop("wsc273")
    assert asked == known and len(asked) == 12


def test_passages_without_titles_are_noted(ours: Ran) -> None:
    notes = {score.task: score.note for score in ours[0].scores}
    assert "without the titles" in notes["BoolQ"]
    assert "titles" not in notes["AQuA-RAT (AGIEval)"]


@pytest.mark.parametrize("task", ["hellaswag", "arc_easy", "winogrande"])
def test_fewshot_requests_are_those_of_the_harness_itself(
    task: str, hub: Path, model: Path, questions: Path, tmp_path: Path
) -> None:
    """The examples come from the split that the harness takes, and are the ones that it draws."""
    import lm_eval.tasks
    from lm_eval.models.huggingface import HFLM

    folder, name = shutil.copytree(questions, tmp_path / "eval"), FILES[task].name
    (folder / f"{name.rpartition('.')[0]}.train.jsonl").write_text(
        tiny_questions.lines(tiny_questions.local_rows(name)), encoding="utf-8"
    )
    shipped = Path(lm_eval.tasks.__file__).parent
    wrapper: Any = HFLM
    harness = wrapper(str(model), dtype="float32", softmax_dtype="float32", batch_size=16, device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(hub)
        manager = lm_eval.tasks.TaskManager(include_path=[shipped / str(USES[task].shipped)], include_defaults=False)
        theirs = lm_eval.simple_evaluate(
            harness, tasks=[task], task_manager=manager, num_fewshot=2, bootstrap_iters=0, limit=4
        )
    assert theirs is not None
    samples: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "lilliput.evals.harness.write_records",
            lambda answered, path: samples.extend(answered[0].answer["samples"][task]),
        )
        found = evaluate_by_name(
            model, "mtlm", Folder(folder), tasks=[task], num_fewshot=2, limit=4, records=tmp_path / "records.jsonl"
        )
    assert [one["arguments"] for one in samples] == [one["arguments"] for one in theirs["samples"][task]]
    assert all("2 examples before each" in score.note for score in found.scores)


def test_fewshot_needs_examples_that_are_not_scored(model: Path, questions: Path) -> None:
    with pytest.raises(DataError, match=r"no examples: piqa.train.jsonl") as refused:
        evaluate_by_name(model, "open-slm", Folder(questions), tasks=["piqa"], num_fewshot=3)
    assert "--num-fewshot 3" in refused.value.where
    with pytest.raises(RecipeError, match="num_fewshot is -1"):
        evaluate_by_name(model, "open-slm", Folder(questions), tasks=["piqa"], num_fewshot=-1)


def test_files_that_few_have_are_left_out_and_named(model: Path, questions: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(questions, tmp_path / "eval")
    for path in folder.glob("wsc.validation.jsonl*"):
        path.unlink()
    found = evaluate_by_name(model, "mtlm", Folder(folder), limit=2)
    assert found.absent == {"Winograd (SuperGLUE WSC)": "wsc.validation.jsonl"}
    tasks = list(dict.fromkeys(score.task for score in found.scores))
    assert len(tasks) == 12 and tasks[-1] == "Winograd (WSC273)"
