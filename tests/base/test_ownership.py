"""The gate before anything of a run is removed or replaced, and the one around what reads files of others."""

import os

import pytest
import tiny

from lilliput.base.errors import LilliputError, RecipeError, RunError, reading
from lilliput.base.files import write_bytes
from lilliput.base.locked_folder import LockedFolder
from lilliput.base.ownership import check_name, inside, is_written, remove
from lilliput.base.run_folder import RunFolder

NO_NAMES = ["../../thesis", "..", "a/b", "/tmp/x", ".hidden", "-rf", "a\\b", "C:x", "", "é", "x" * 101]


@pytest.mark.parametrize("kind", ["phase", "release", "corpus", "recipe"])
def test_a_name_is_one_component_of_a_path(kind):
    for name in NO_NAMES:
        with pytest.raises(RecipeError, match=f"a {kind} cannot be named"):
            check_name(kind, name, "a test")
    for name in ("a", "fineweb-edu", "SLM_10M.v2", "0", "x" * 100):
        check_name(kind, name, "a test")


def test_names_that_are_one_folder_somewhere_are_refused(tmp_path):
    recipe = tiny.recipe(tmp_path)
    with pytest.raises(RecipeError, match="two corpora are named"):
        type(recipe)(**vars(recipe) | {"corpora": {**recipe.corpora, "Texts": recipe.corpora["texts"]}})


def test_a_link_in_the_place_of_an_unfinished_file_leads_nowhere(tmp_path):
    (tmp_path / "thesis.tex").write_text("ten years of work")
    (tmp_path / "report.html.partial").symlink_to(tmp_path / "thesis.tex")
    with pytest.raises(OSError, match="symbolic links"):
        write_bytes(tmp_path / "report.html", b"page")
    assert (tmp_path / "thesis.tex").read_text() == "ten years of work"


@pytest.mark.parametrize("target", ["../x", "a/../../x", "/etc", "", ".", "a//b"])
def test_a_target_lies_below_the_run(tmp_path, target):
    with pytest.raises(RunError, match="not inside the run folder"):
        inside(tmp_path, target)
    with pytest.raises(RunError):
        remove(tmp_path, target)


def test_a_lock_is_no_link(tmp_path):
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="cannot be written"), LockedFolder(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_one_place_turns_whatever_reading_raises_into_three_parts(tmp_path):
    class PanicException(BaseException):
        pass

    for error in (RecursionError("deep"), KeyError("x"), OverflowError("far"), PanicException("rust")):
        with pytest.raises(LilliputError, match=type(error).__name__) as raised, reading(tmp_path, "look"):
            raise error
        assert raised.value.where == str(tmp_path) and raised.value.hint == "look"
    for passed in (KeyboardInterrupt(), SystemExit(1), MemoryError()):
        with pytest.raises(type(passed)), reading(tmp_path, "look"):
            raise passed


def test_only_a_run_is_marked_as_one(tmp_path):
    with RunFolder(tmp_path / "new"):
        assert sorted(os.listdir(tmp_path / "new")) == [".lock", "run.json"]


def test_what_a_run_writes_is_told_by_its_name():
    assert not is_written("releases/tiny-base/NOTES.md") and not is_written("texts/a.jsonl")
    assert is_written("phases/00-pretrain.before.partial/final.replaced.partial/weights.safetensors")
    assert is_written("shards/texts.begun-0123456789ab/train-00000.bin")
