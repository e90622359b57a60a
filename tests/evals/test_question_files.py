"""Questions from a folder: what is missing, damaged or beside the point is said before anything is scored."""

import json
import lzma
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_questions
from tiny_releases import RELEASES, awake, tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from lilliput.base.errors import DataError, RecipeError
from lilliput.data.corpora.arithmetic import arithmetic_items
from lilliput.evals.evaluation import Evaluation
from lilliput.evals.local_files import FILES
from lilliput.evals.question_files import Folder, Hub, check_questions, from_file, question_source
from lilliput.evals.run_suite import evaluate_by_name
from lilliput.evals.suites import MTLM, OPEN_SLM, SMOKE
from lilliput.publish.export import Generation, export


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec, layout = RELEASES["hgrn2"]
    folder = tmp_path_factory.mktemp("model")
    long, generation = replace(layout, context=2048), Generation()
    export(awake(spec), tokenizer(), folder, layout=long, dtype="F32", generation=generation, chat_template=None)
    return folder


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    return tiny_questions.write_folder(tmp_path / "eval")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(tiny_questions.lines(rows), encoding="utf-8")
    return path


def values(found: Evaluation) -> dict[tuple[str, str], float]:
    return {(score.task, score.metric): score.value for score in found.scores}


def test_missing_files_are_named_before_anything_is_loaded(questions: Path, tmp_path: Path) -> None:
    check_questions(MTLM, Folder(questions))
    (questions / "copa.validation.jsonl.xz").unlink()
    (questions / "winogrande_xl.validation.jsonl").unlink()
    with pytest.raises(DataError) as caught:
        evaluate_by_name(_no_weights(tmp_path), "mtlm", Folder(questions))
    assert "copa.validation.jsonl, winogrande_xl.validation.jsonl" in caught.value.what
    assert "--tasks boolq,agieval_aqua_rat" in caught.value.hint and "copa" not in caught.value.hint
    check_questions(MTLM.only(("wsc", "boolq")), Folder(questions))
    check_questions(MTLM, Hub())


@pytest.mark.parametrize("name", ["[x]", "*", "a?b", "a|b", "a'b", '"'])
def test_a_file_is_read_and_not_those_that_its_name_would_match(tmp_path: Path, name: str) -> None:
    from datasets import load_dataset

    for each in (name, "x", "acb"):
        (tmp_path / each).mkdir()
        write(tmp_path / each / "heldout.txt.jsonl", [{"text": each}])
    settings = from_file(tmp_path / name / "heldout.txt.jsonl", split="test", work=tmp_path)["dataset_kwargs"]
    assert load_dataset("json", **settings)["test"]["text"][:] == [name]


def test_unknown_suites_and_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no evaluation suite 'mtml'"):
        evaluate_by_name(tmp_path, "mtml", Hub())
    with pytest.raises(RecipeError, match="no task 'pika'"):
        evaluate_by_name(tmp_path, "open-slm", Hub(), tasks=["pika"])


def test_eval_data_must_be_a_folder(questions: Path) -> None:
    assert question_source(None) == Hub()
    assert question_source(questions) == Folder(questions)
    with pytest.raises(DataError, match="is not a folder"):
        question_source(questions / "nowhere")


def test_a_hub_out_of_reach_is_an_error_with_a_way_out(model: Path) -> None:
    with pytest.raises(DataError, match="cannot be fetched") as caught:  # the tests forbid the network
        evaluate_by_name(model, "open-slm", Hub(), tasks=["piqa"])
    assert "the hub" in caught.value.where and "--eval-data" in caught.value.hint


def test_arithmark_is_asked_from_its_file_alone(model: Path) -> None:
    with pytest.raises(DataError, match="the hub lacks arithmark_2.0.jsonl"):
        evaluate_by_name(model, "open-slm", Hub(), tasks=["arithmark2"])


@pytest.mark.parametrize(
    ("task", "changes", "says"),
    [
        ("piqa", {"sol1": ["a"]}, r"column 'sol1' is \['a'\], not text that is not blank"),
        ("piqa", {"label": "0"}, "column 'label' is '0', not 0 or 1"),
        ("piqa", {"label": 1.5}, "not 0 or 1"),
        ("piqa", {"goal": "\ud800"}, "not text"),
        ("hellaswag", {"label": 4}, "not one of the choices"),
        ("hellaswag", {"label": 10**30}, "not the place of a choice"),
        ("hellaswag", {"endings": []}, "not a list of 2 to 26 texts"),
        ("arc_easy", {"choices": [["a"]]}, "not {"),
        ("arc_easy", {"answerKey": "Z"}, "not one of the choices"),
        ("winogrande", {"sentence": "no gap"}, "not text with a gap"),
        ("copa", {"question": "why"}, "not one of cause, effect"),
        ("boolq", {"answer": [True]}, "no column 'label'"),
        ("wsc", {"span2_index": None}, "None, not a whole number"),
        ("agieval_aqua_rat", {"options": {"A": 1}}, "no column 'query'"),
        ("wsc273", {"context_options": ["only one"]}, "no column 'text'"),
        ("agieval_aqua_rat", {"correct": "Z"}, "not one of the choices"),
        ("truthfulqa_mc1", {"mc1_targets": {"choices": ["a", "b"], "labels": [1]}}, "as many 0 or 1"),
        ("commonsense_qa", {"answerKey": "F"}, "not one of A, B, C, D, E"),
    ],
)
def test_values_that_the_harness_would_stumble_over_are_named(
    questions: Path, task: str, changes: dict[str, Any], says: str
) -> None:
    use = next(use for use in (*MTLM.uses, *OPEN_SLM.tasks) if use.task == task)
    name = FILES[task].name
    rows = tiny_questions.local_rows(name)
    for path in questions.glob(f"{name}.*"):
        path.unlink()
    path = questions / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0] | changes]))
    for read in (lambda: Folder(questions).questions(use, questions), lambda: Folder(questions).identity((use,))):
        with pytest.raises(DataError, match=says) as caught:
            read()
        assert caught.value.where == f"{path}, record 13"


def test_a_folder_of_questions_that_grows_is_refused(
    questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (use,) = OPEN_SLM.only(("piqa",)).tasks
    monkeypatch.setenv("LILLIPUT_MAX_DOCUMENT_BYTES", "200")
    with pytest.raises(DataError, match="more than 200 bytes of questions") as caught:
        Folder(questions).questions(use, tmp_path)
    assert "LILLIPUT_MAX_DOCUMENT_BYTES=400" in caught.value.hint


@pytest.mark.parametrize(
    ("row", "what"),
    [({"goal": "g", "sol1": "a", "label": 0}, "no column 'sol2'"), ("no object", "not a JSON object")],
)
def test_a_row_that_cannot_be_asked_is_named(questions: Path, model: Path, row: Any, what: str) -> None:
    path = questions / "piqa.validation.jsonl"
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=what) as caught:
        evaluate_by_name(model, "open-slm", Folder(questions), tasks=["piqa"])
    assert caught.value.where == f"{path}, record 13"


def test_one_question_has_no_standard_error(questions: Path, model: Path) -> None:
    write(questions / "piqa.validation.jsonl", tiny_questions.local_rows("piqa.validation")[:1])
    with pytest.raises(DataError, match="has 1 questions"):
        evaluate_by_name(model, "open-slm", Folder(questions), tasks=["piqa"])


def test_files_in_the_columns_of_the_hub_are_taken_as_they_are(questions: Path, model: Path) -> None:
    tasks = ["boolq", "agieval_aqua_rat"]
    before = evaluate_by_name(model, "mtlm", Folder(questions), tasks=tasks, trust_remote_code=True)
    for name in ("boolq.validation", "aqua_rat.test"):
        for path in questions.glob(f"{name}.*"):
            path.unlink()
        rows = [tiny_questions.PUBLIC[name][3](row) for row in tiny_questions.local_rows(name)]
        write(questions / f"{name}.jsonl", rows)
    after = evaluate_by_name(model, "mtlm", Folder(questions), tasks=tasks, trust_remote_code=True)
    assert values(after) == values(before)
    assert "titles" in before.scores[0].note and "titles" not in after.scores[0].note


def test_the_identity_of_questions_is_what_is_asked(questions: Path) -> None:
    before = Folder(questions).identity(OPEN_SLM.tasks)
    assert set(before) == {use.task for use in OPEN_SLM.tasks}
    path = questions / "piqa.validation.jsonl"
    plain = path.read_text()
    path.write_text(plain.replace("cat", "dog"), encoding="utf-8")
    after = Folder(questions).identity(OPEN_SLM.tasks)
    assert {task for task in before if before[task] != after[task]} == {"piqa"}
    rows = [{"source": "elsewhere"} | json.loads(line) for line in plain.splitlines()]
    path.with_suffix(".jsonl.xz").write_bytes(lzma.compress(tiny_questions.lines(rows).encode()))
    path.unlink()
    assert Folder(questions).identity(OPEN_SLM.tasks) == before, "neither compression nor a column that nobody reads"
    assert Hub().identity(()) == Folder(questions).identity(()) == {}


def test_only_a_folder_with_other_questions_differs_from_those_that_were_asked(questions: Path) -> None:
    uses = (*OPEN_SLM.tasks, *OPEN_SLM.optional)
    known = Folder(questions).identity(uses)
    assert not Folder(questions).differs(uses, known) and not Hub().differs(uses, known)
    assert not Folder(questions).differs(uses, known | {"arithmark2": "0" * 64}), "what it lacks is not other"
    assert Folder(questions).differs(uses, {}) and not Hub().differs(uses, {})
    write(questions / "arithmark_2.0.jsonl", arithmetic_items(20, seed=3))
    assert Folder(questions).differs(uses, known)


def test_every_public_task_has_a_place_in_the_folder() -> None:
    for use in (*MTLM.tasks, *MTLM.optional, *OPEN_SLM.tasks, *OPEN_SLM.optional):
        assert FILES[use.task].split in ("validation", "test")


def test_averages_are_given_where_every_input_is_there(questions: Path, model: Path) -> None:
    found = evaluate_by_name(model, "open-slm", Folder(questions), trust_remote_code=True)
    assert {average.name for average in found.averages} == {"headline", "arc_avg_acc", "arc_avg_accnorm"}
    assert found.scores[-1].task == "arithmark2-synthetic" and found.scores[-1].items == 500
    compressed = tiny_questions.lines(arithmetic_items(20, seed=3)).encode()
    (questions / "arithmark_2.0.jsonl.xz").write_bytes(lzma.compress(compressed))
    whole = evaluate_by_name(model, "open-slm", Folder(questions), trust_remote_code=True)
    names = {average["name"]: average for average in json.loads(json.dumps(whole.plain()))["averages"]}
    assert set(names) == {"avg_slm", "headline", "arc_avg_acc", "arc_avg_accnorm"}
    got = values(whole)
    arc = (got["ARC-Easy", "acc_norm"] + got["ARC-Challenge", "acc_norm"]) / 2
    four = (got["HellaSwag", "acc_norm"], arc, got["PIQA", "acc_norm"], got["ArithMark-2.0", "acc"])
    assert names["avg_slm"]["value"] == pytest.approx(sum(four) / 4)
    assert {"name", "value", "stderr", "formula"} == set(names["avg_slm"])


def test_a_limit_asks_the_first_questions_and_gives_no_average(questions: Path, model: Path) -> None:
    assert SMOKE.limit == 100
    found = evaluate_by_name(model, "smoke", Folder(questions), limit=3, trust_remote_code=True)
    assert {score.items for score in found.scores} == {3}
    assert all(score.note.startswith("first 3 items only") for score in found.scores)
    assert found.averages == ()


@pytest.mark.parametrize("task", ["arithmark2", "arithmark3"])
def test_arithmark_encodes_contexts_and_endings_apart(task: str, questions: Path, model: Path, tmp_path: Path) -> None:
    # " the" and "he" merge in this tokenizer: joined, the boundary of the second item would be lost.
    items = [
        {"ctx": "1 + 1 =", "endings": [" 2", " 30", " 400", " 5000"], "label": 0},
        {"ctx": "see t", "endings": ["he fox", "x", "o", "he"], "label": 1},
    ]
    write(questions / f"{FILES[task].name}.jsonl", items)
    path = tmp_path / "records.jsonl"
    evaluate_by_name(model, "open-slm", Folder(questions), tasks=[task], records=path, trust_remote_code=True)
    encoder = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, trust_remote_code=True).eval()
    joined = encoder("see the fox")["input_ids"]
    assert encoder("see t")["input_ids"] + encoder("he fox")["input_ids"] != joined
    for line, item in zip(path.read_text().splitlines(), items, strict=True):
        record = json.loads(line)
        for found, ending in zip(record["log_likelihoods"], item["endings"], strict=True):
            context, tokens = encoder(item["ctx"])["input_ids"], encoder(ending)["input_ids"]
            total = _log_likelihood(network, context, tokens)
            assert found == pytest.approx(total / (len(tokens) if task == "arithmark3" else 1), rel=1e-5)


def test_a_choice_longer_than_the_window_is_refused(questions: Path, tmp_path: Path) -> None:
    spec, layout = RELEASES["qwen3"]
    short, generation = replace(layout, context=16), Generation()
    export(awake(spec), tokenizer(), tmp_path, layout=short, dtype="F32", generation=generation, chat_template=None)
    with pytest.raises(DataError, match="the model's window 16") as caught:
        evaluate_by_name(tmp_path, "open-slm", Folder(questions), tasks=["hellaswag"])
    assert "HellaSwag" in caught.value.where


def _log_likelihood(network: Any, context: list[int], continuation: list[int]) -> float:
    import torch

    with torch.no_grad():
        logits = network(torch.tensor([(context + continuation)[:-1]])).logits[0]
    rows = logits.double().log_softmax(-1)[-len(continuation) :]
    return sum(rows[index, token].item() for index, token in enumerate(continuation))


def _no_weights(folder: Path) -> Path:
    """A folder that looks like a model and cannot be loaded."""
    (folder / "config.json").write_text("{}")
    return folder
