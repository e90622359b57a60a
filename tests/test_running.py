"""What the commands do, in Python: the same runs, and what they made comes back."""

from dataclasses import replace

import pytest
import tiny

import lilliput
from lilliput.base.errors import LilliputError
from lilliput.base.rundir import RunFolder
from lilliput.base.spec import to_plain
from lilliput.command import Command, write_command
from lilliput.running import _aim
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
        (run.model, "released nothing yet"),
    ):
        with pytest.raises(LilliputError, match=said):
            wrong()


def test_a_run_that_is_continued_keeps_the_command_of_its_card(tmp_path):
    folder = tmp_path / "run"
    made = Command(recipe="quickstart", shrink=True)
    with RunFolder(folder) as opened:
        opened.write("recipe.json", to_plain(made.make()))
        write_command(opened, made, made.make())
    found, _ = _aim(folder, None, None, ["seed=3"], {}, False, False)
    assert found.command == replace(made, overrides=("seed=3",)) and found.recipe.seed == 3


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
        ({"recipe": "quickstart", "machine": 4}, "4 is no machine"),
        ({"recipe": "quickstart", "machine": "cpuu"}, "cpu"),
        ({"recipe": "quickstart", "overrides": {"seed": 1}}, "no list of texts"),
        ({"recipe": "quickstart", "overrides": "seeed=1"}, "seeed"),
        ({"recipe": "own-text", "sources": ["texts"]}, "no mapping"),
        ({"recipe": "own-text", "sources": {"texts": 3}}, "no list of texts"),
        ({"recipe": "own-text", "sources": {"texts": "nowhere"}}, "nowhere"),
        ({"recipe": "own-text", "folder": 7}, "the folder is 7"),
    ],
)
def test_wrong_arguments_are_told_in_three_parts(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LilliputError, match=said) as told:
        lilliput.run_recipe(**arguments)
    assert told.value.where and told.value.hint and not list(tmp_path.iterdir())


def test_names_are_listed_and_imported_when_they_are_asked_for():
    assert {"load", "run_recipe", "train_recipe", "evaluate_model", "Model", "Run"} <= set(dir(lilliput))
    with pytest.raises(AttributeError, match="lode"):
        _ = lilliput.lode
    assert callable(lilliput.evaluate_model)
