"""Tasks of one's own: a YAML file as the harness has it, whose questions are asked and whose Python is not run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_releases import RELEASES, awake, tokenizer

from lilliput.base.errors import DataError, RecipeError
from lilliput.evals.own_tasks import load_own, sandboxed
from lilliput.evals.question_files import Hub
from lilliput.evals.run_suite import evaluate_own
from lilliput.evals.task_file import read_task
from lilliput.publish.export import Generation, export

TASK = """
task: animals
task_alias: Animals
dataset_path: json
dataset_kwargs:
  data_files:
    test: data/animals.jsonl
test_split: test
doc_to_text: "Q: {{question}}\\nA:"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - metric: acc
"""
ROWS = [
    {"question": "which is small?", "choices": ["ant", "bear"], "answer": 0},
    {"question": "which is large?", "choices": ["ant", "bear", "cat", "dog"], "answer": 1},
    {"question": "which flies?", "choices": ["owl", "bear"], "answer": 0},
    {"question": "which swims?", "choices": ["ant", "bear", "cat", "cod"], "answer": 3},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    spec, layout = RELEASES["llama"]
    folder = tmp_path_factory.mktemp("model")
    long = replace(layout, context=128)
    export(awake(spec), tokenizer(), folder, layout=long, dtype="F32", generation=Generation(), chat_template=None)
    return folder


def write(folder: Path, text: str = TASK, rows=ROWS, name: str = "animals.yaml") -> Path:
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "animals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / name).write_text(text)
    return folder / name


def loaded(path: Path, work: Path, *, trusted: bool = False):
    file = read_task(path, trusted=trusted, work=work)
    with sandboxed([file]):
        return load_own(file)


def test_it_is_scored_with_chance_and_standard_error(model, tmp_path, monkeypatch):
    path = write(tmp_path)
    monkeypatch.chdir(tmp_path / "data")  # files lie beside the YAML file, wherever one stands
    records = tmp_path / "records.jsonl"
    found = evaluate_own(model, [path], Hub(), records=records)
    (score,) = found.scores
    items = [json.loads(line) for line in records.read_text().splitlines()]
    right = [int(item["prediction"] == row["answer"]) for item, row in zip(items, ROWS, strict=True)]
    share = sum(right) / 4
    assert (score.task, score.metric, score.value, score.items) == ("Animals", "acc", share, 4)
    assert score.chance == (1 / 2 + 1 / 4 + 1 / 2 + 1 / 4) / 4
    assert (score.stderr or 0.0) == pytest.approx((share * (1 - share) / 3) ** 0.5)
    assert len(found.questions["animals"]) == 64


def test_the_commonest_answer_counts_where_choices_are_the_same(tmp_path):
    text = TASK.replace("doc_to_choice: choices", 'doc_to_choice: ["no", "yes"]').replace("answer", "{{label}}")
    text = text.replace("doc_to_target: {{label}}", 'doc_to_target: "{{label}}"')
    rows = [{"question": str(number), "label": int(number < 7)} for number in range(10)]
    use = loaded(write(tmp_path, text, rows), tmp_path / "work").use
    assert (use.chance, use.majority, use.metrics) == (0.5, 0.7, ("acc",))


def test_a_file_goes_on_from_others_and_names_texts_as_answers(tmp_path):
    write(tmp_path, TASK.replace("doc_to_target: answer", ""), name="base.yaml")
    rows = [row | {"answer": row["choices"][row["answer"]]} for row in ROWS]
    more = (
        "include: base.yaml\ntask: more\ntask_alias: null\ndoc_to_target: answer\nnum_fewshot: 1\nfewshot_split: test\n"
    )
    own = loaded(write(tmp_path, more, rows), tmp_path / "work")
    assert own.use.display == "more" and own.use.chance == 0.375
    assert own.task.fewshot_context(own.task.eval_docs[0], 1).count("Q:") == 2, "an example comes before it"


CANARY = "import pathlib\npathlib.Path({canary!r}).touch()\ndef choices(doc):\n    return doc['choices']\n"
ESCAPE = "{{{{ cycler.__init__.__globals__.os.system('touch {canary}') }}}}"


def test_python_runs_only_where_it_is_trusted(tmp_path):
    canary = tmp_path / "canary"
    (tmp_path / "mine.py").write_text(CANARY.format(canary=str(canary)))
    path = write(tmp_path, TASK.replace("doc_to_choice: choices", "doc_to_choice: !function mine.choices"))
    with pytest.raises(DataError, match="is Python code that would run") as refused:
        read_task(path, trusted=False, work=tmp_path / "work")
    assert refused.value.where == f"{path}, line 10" and "--trust-remote-code" in refused.value.hint
    write(tmp_path, "include: animals.yaml\ntask: other\n", name="other.yaml")
    with pytest.raises(DataError, match="is Python code that would run"):
        read_task(tmp_path / "other.yaml", trusted=False, work=tmp_path / "work")
    assert not canary.exists()
    assert loaded(path, tmp_path / "work", trusted=True).use.chance == 0.375 and canary.exists()


def test_a_template_cannot_leave_its_sandbox(tmp_path):
    import lm_eval.utils

    canary, before = tmp_path / "canary", lm_eval.utils.env
    path = write(tmp_path, TASK.replace("doc_to_target: answer", f'doc_to_target: "{ESCAPE.format(canary=canary)}"'))
    with pytest.raises(DataError, match="unsafe"):
        loaded(path, tmp_path / "work")
    assert not canary.exists() and lm_eval.utils.env is before


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("data/animals.jsonl", "data/animal.jsonl", "there is no file 'data/animal.jsonl'"),
        ("doc_to_text:", "doc_to_txt:", "nearest names: doc_to_text"),
        ("metric: acc", "metric: acc_nrm", "nearest: acc_norm"),
        ("metric: acc", "metric: f1", "no metric 'f1'"),
        ("test_split: test", "", "no test_split"),
        ("test_split: test", "test_split: train", "cannot be loaded"),
        ("doc_to_target: answer", "", "no doc_to_target"),
        ("doc_to_target: answer", "doc_to_target: question", "not one of the 2 choices"),
        ("doc_to_choice: choices", "doc_to_choice: question", "its choices are"),
        ("task: animals", "task: animals\noutput_type: generate_until", "output_type is 'generate_until'"),
        ("task: animals", "task: animals\nprocess_docs: x", "is Python"),
        ("task: animals", "task: !!python/object/apply:os.system ['true']", "cannot be read"),
        ("task: animals", "include: animals.yaml", "includes itself"),
        ("task: animals", "task: [animals", "cannot be read"),
        ("dataset_path: json", "dataset_path: pandas", "readers of local files"),
        ("dataset_path: json", "dataset_path: jsn", "readers of local files: json"),
        ("dataset_path: json", "dataset_path: json\ncustom_dataset: x", "no setting 'custom_dataset'"),
    ],
)
def test_what_cannot_be_asked_is_told_with_where_and_what_to_do(tmp_path, old, new, says):
    path = write(tmp_path, TASK.replace(old, new))
    with pytest.raises(DataError) as refused:
        loaded(path, tmp_path / "work")
    assert says in f"{refused.value.what} {refused.value.hint}" and str(path) in refused.value.where


def test_files_that_are_no_tasks_are_refused(model, tmp_path):
    with pytest.raises(DataError, match="piqa is not a file") as refused:
        evaluate_own(model, [Path("piqa")], Hub())
    assert "--tasks piqa" in refused.value.hint
    with pytest.raises(DataError, match="1 questions"):
        loaded(write(tmp_path, rows=ROWS[:1]), tmp_path / "work")
    path = write(tmp_path)
    with pytest.raises(RecipeError, match="two tasks are named 'animals'"):
        evaluate_own(model, [path, path], Hub())
