"""Where a run folder was expected and none is, the error says which of the reasons it is."""

import pytest

import lilliput
from lilliput.base.errors import RunError
from lilliput.base.files import write_json
from lilliput.base.run_folder import no_run


def test_a_sweep_names_variants_of_it(tmp_path):
    write_json(tmp_path / "sweep.json", {})
    for name in ("lr=0.01,seed=0", "lr=0.02,seed=0", "lr=0.03,seed=0"):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "recipe.json", {})
    error = no_run(tmp_path)
    assert "a sweep" in error.what and "lr=0.01,seed=0" in error.hint and "lr=0.02,seed=0" in error.hint


def test_a_missing_folder_names_those_beside_it(tmp_path):
    (tmp_path / "quickstart").mkdir()
    error = no_run(tmp_path / "quickstrat")
    assert error.what == "the folder does not exist" and error.hint == f"nearest names: {tmp_path / 'quickstart'}"
    assert "no recipe.json" in no_run(tmp_path / "quickstart").what


def test_swapped_arguments_are_named(tmp_path):
    with pytest.raises(RunError, match=r"write load_trained\('my_mixer.py', 'runs/layered'\)"):
        lilliput.load_trained("runs/layered", "my_mixer.py")


def test_a_recipe_by_name_is_its_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="the folder does not exist"):
        lilliput.load("own-text")
    (tmp_path / "runs" / "own-text").mkdir(parents=True)
    write_json(tmp_path / "runs" / "own-text" / "recipe.json", {"timeline": []})
    with pytest.raises(RunError, match="the run has no release yet"):
        lilliput.load("own-text")
