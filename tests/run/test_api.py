"""What the commands do, in Python: the same runs, and what they made comes back."""

import shutil
from dataclasses import replace

import pytest
import tiny

import lilliput
from lilliput.base.errors import LilliputError
from lilliput.base.run_folder import RunFolder
from lilliput.base.spec import to_plain
from lilliput.run.api import _aim
from lilliput.run.command_record import Command, write_command
from lilliput.train.machine import Machine

CPU = Machine(device="cpu", precision="fp32", threads=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("running")
    recipe = tiny.recipe(folder / "data")
    recipe = tiny.replace(recipe, timeline=recipe.timeline[:3])
    return recipe, lilliput.train_recipe(recipe, folder / "run", machine=CPU, quiet=True)


def test_what_is_trained_comes_back(trained, capsys):
    recipe, run = trained
    assert run.recipe == recipe and run.releases == [] and not capsys.readouterr().out
    lines = run.metrics("pretrain")
    assert (
        lines[0]["step"] == 1
        and set(lines[-1]["heldout"]) == {"texts", "texts/live"}
        and lines[-1]["tokens"] == lines[-2]["tokens"]
    )
    for wrong, said in (
        (lambda: run.metrics("sft"), "phases that were trained: pretrain"),
        (run.scores, "there is no release"),
        (run.model, "no release yet"),
    ):
        with pytest.raises(LilliputError, match=said):
            wrong()


def test_a_run_that_is_continued_keeps_the_command_of_its_card(tmp_path):
    folder = tmp_path / "run"
    made = Command(recipe="quickstart", shrink=True)
    with RunFolder(folder) as opened:
        opened.write("recipe.json", to_plain(made.make()))
        write_command(opened, made, made.make())
    found, _ = _aim(folder, None, None, ["seed=3"], {}, (), False, False)
    assert found.command == replace(made, overrides=("seed=3",)) and found.recipe.seed == 3


def test_a_run_without_a_release_is_asked_a_task_of_ones_own(trained, tmp_path):
    (tmp_path / "questions.jsonl").write_text('{"q": "one and one is", "a": "two"}\n' * 3)
    (tmp_path / "sums.yaml").write_text(
        "task: sums\ndataset_path: json\ndataset_kwargs: {data_files: {test: questions.jsonl}}\ntest_split: test\n"
        "output_type: multiple_choice\ndoc_to_text: '{{q}}'\ndoc_to_choice: [' two', ' three']\ndoc_to_target: 0\n"
        "metric_list: [{metric: acc}]\n"
    )
    run = trained[1].folder
    found = lilliput.evaluate_model(run, task_files=[tmp_path / "sums.yaml"], device="cpu")
    assert [(score.task, score.items) for score in found.scores] == [("sums", 3)]
    with pytest.raises(LilliputError, match="suite and task_files cannot be combined"):
        lilliput.evaluate_model(run, "smoke", task_files=[tmp_path / "sums.yaml"])


def test_a_run_is_trained_for_longer(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained[1].folder, folder)
    longer = lilliput.train_recipe(folder, more_tokens="2e3", machine=CPU, quiet=True)
    phases = [entry.name for entry in longer.recipe.timeline if hasattr(entry, "tokens")]
    assert phases == ["pretrain", "pretrain-2"] and longer.metrics("pretrain-2")[-1]["tokens"] > 1_900
    with pytest.raises(LilliputError, match="more_tokens|more-tokens"):
        lilliput.train_recipe(folder, more_tokens="plenty", machine=CPU, quiet=True)


@pytest.mark.slow
def test_a_run_is_continued_and_its_releases_are_there_to_use(trained):
    run = lilliput.run_recipe(trained[1].folder, machine=CPU, quiet=True)
    assert [folder.name for folder in run.releases] == ["tiny-base"]
    assert run.scores()[0]["metric"] == "bits_per_byte" and run.scores("tiny-base") == run.scores()
    assert run.model(device="cpu").generate("text", max_new_tokens=3, temperature=0) is not None
    found = lilliput.evaluate_model(run.folder, "quickstart", tasks=["arithmark2_synthetic"], device="cpu", limit=8)
    assert [score.items for score in found.scores] == [8]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"recipe": 5}, "the recipe is 5"),
        ({"recipe": "quickstrat"}, "quickstart"),
        ({"recipe": "quickstart", "machine": 4}, "4 is not a machine"),
        ({"recipe": "quickstart", "machine": "cpuu"}, "cpu"),
        ({"recipe": "quickstart", "overrides": {"seed": 1}}, "not a list of texts"),
        ({"recipe": "quickstart", "overrides": "seeed=1"}, "seeed"),
        ({"recipe": "own-text", "sources": ["texts"]}, "not a mapping"),
        ({"recipe": "own-text", "sources": {"texts": 3}}, "not a list of texts"),
        ({"recipe": "own-text", "sources": {"texts": "nowhere"}}, "nowhere"),
        ({"recipe": "own-text", "folder": 7}, "the folder is 7"),
    ],
)
def test_wrong_arguments_are_told_in_three_parts(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LilliputError, match=said) as told:
        lilliput.run_recipe(**arguments)
    assert told.value.where and told.value.hint and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"overrides": "sed=1"}, 'overrides=["sed=1"]'),
        ({"overrides": ["seed"]}, 'overrides=["seed=1"]'),
        ({"sources": {"text": "texts"}}, "nearest names: texts"),
    ],
)
def test_errors_name_arguments_and_no_options(arguments, named):
    with pytest.raises(LilliputError) as told:
        lilliput.run_recipe("own-text", **arguments)
    assert named in str(told.value) and "--" not in str(told.value)


def test_names_are_listed_and_imported_when_they_are_asked_for():
    assert not {"Any", "TYPE_CHECKING", "import_module", "_FROM"} & set(dir(lilliput))
    assert {"load", "run_recipe", "train_recipe", "evaluate_model", "Model", "Run"} <= set(dir(lilliput))
    with pytest.raises(AttributeError, match="lode"):
        _ = lilliput.lode
    assert callable(lilliput.evaluate_model)
