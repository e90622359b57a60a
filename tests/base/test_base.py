"""Files, specs, units and run folders: whole or absent, strict, done once."""

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import tiny

from lilliput.base.errors import LilliputError, RecipeError, RunError
from lilliput.base.field_overrides import override, override_all
from lilliput.base.files import PARTIAL, new_folder, read_json, write_json, write_text
from lilliput.base.run_folder import RunFolder
from lilliput.base.spec import from_plain, to_plain
from lilliput.base.units import Share, Steps, Tokens


def test_errors_have_three_parts():
    error = LilliputError("a is wrong", where="here", hint="do b")
    assert str(error) == "a is wrong\n  where: here\n  hint: do b"


def test_a_file_is_replaced_whole(tmp_path):
    write_text(tmp_path / "a" / "file", "one")
    write_text(tmp_path / "a" / "file", "two")
    assert (tmp_path / "a" / "file").read_text() == "two"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


def test_a_failed_folder_leaves_the_old_one(tmp_path):
    with new_folder(tmp_path / "f") as partial:
        (partial / "old").write_text("kept")
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "f") as partial:
        (partial / "new").write_text("half")
        _ = 1 / 0
    assert (tmp_path / "f" / "old").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_new_folder_replaces_the_old_one(tmp_path):
    for name in ("one", "two"):
        with new_folder(tmp_path / "f") as partial:
            (partial / name).write_text(name)
    assert [path.name for path in (tmp_path / "f").iterdir()] == ["two"]


def test_recipes_are_data_and_come_back(tmp_path):
    recipe = tiny.recipe(tmp_path)
    plain = to_plain(recipe)
    write_json(tmp_path / "recipe.json", plain)
    assert from_plain(read_json(tmp_path / "recipe.json")) == recipe


@dataclass
class Thawed:
    number: int = 1


@pytest.mark.parametrize(
    ("plain", "says"),
    [
        ({"type": "lilliput.nn.gqa:GQA", "heads": 2, "kv_heads": 1, "head_width": 8, "had_width": 1}, "'had_width'"),
        ({"type": "lilliput.nn.gqa:Nothing"}, "has no type"),
        ({"type": "lilliput.base.spec:Any"}, "is not a spec"),
        ({"type": "lilliput.base.errors:RunError"}, "is not a spec"),
        *(
            ({"type": name}, "is not one of Lilliput's")
            for name in (
                "os:system",
                "lilliput.__main__:main",
                "lilliput.cli.app:Console",
                "lilliput.benchmarks.scan:Row",
                "lilliput.nn.gqa:os.system",
                "runs.mine:Spec",
                ".gqa:GQA",
                f"{__name__}:Thawed",
                "",
                7,
                ["lilliput.nn.gqa:GQA"],
            )
        ),
    ],
)
def test_only_specs_are_loaded(plain, says):
    with pytest.raises(RecipeError, match=says):
        from_plain(plain)


def test_what_is_no_data_is_refused():
    with pytest.raises(RecipeError, match="cannot be part of a recipe"):
        to_plain({"a": object()})


def test_override_sets_what_is_not_set_and_unsets_what_is(tmp_path):
    recipe = tiny.recipe(tmp_path)
    assert recipe.license is None and override(recipe, "license", "mit").license == "mit"
    data = "timeline.pretrain.optimizer.embedding_lr"
    assert override(recipe, data, "3e-3").timeline[0].optimizer.embedding_lr == 3e-3
    assert override(override(recipe, data, "3e-3"), data, "none").timeline[0].optimizer.embedding_lr is None
    with pytest.raises(RecipeError, match="does not fit this field, which is None now") as raised:
        override(recipe, data, "fast")
    assert raised.value.hint == "give one of: float"


def test_override_reads_text_as_the_type_that_is_there(tmp_path):
    recipe = tiny.recipe(tmp_path)
    assert override(recipe, "timeline.0.tokens", "1e9").timeline[0].tokens == Tokens(1e9)
    assert override(recipe, "timeline.pretrain.optimizer.lr", "0.5").timeline[0].optimizer.lr == 0.5
    assert override(recipe, "timeline.0.data.weights.texts", "2").timeline[0].data.weights == {"texts": 2.0}
    assert override(recipe, "seed", "7") == replace(recipe, seed=7)
    assert override(recipe, "model.tie_embeddings", "false").model.tie_embeddings is False


def test_overrides_are_checked_together(tmp_path):
    recipe = tiny.recipe(tmp_path)
    both = override_all(recipe, [("model.vocab", "400"), ("tokenizer.vocab", "400"), ("timeline.pretrain.clip", "2")])
    assert both.model.vocab == both.tokenizer.vocab == 400 and both.timeline[0].clip == 2
    with pytest.raises(RecipeError, match="the tokenizer has 300 tokens, the model 270"):
        override(recipe, "model.vocab", "270")
    with pytest.raises(RecipeError, match="set twice"):
        override_all(recipe, [("timeline.0.clip", "1"), ("timeline.pretrain.clip", "2")])


@pytest.mark.parametrize(
    ("path", "text", "says"),
    [
        ("modle.width", "8", "nearest names: model"),
        ("timeline.pretrian.length", "8", "nearest names: pretrain"),
        ("timeline.9", "8", "there is no field '9'"),
        ("model.width", "wide", "give a whole number, e.g. 12"),
        ("model.width", "1.5", "cannot replace"),
        ("seed.more", "1", "has no field named 'more'"),
    ],
)
def test_override_is_strict(tmp_path, path, text, says):
    with pytest.raises(RecipeError) as error:
        override(tiny.recipe(tmp_path), path, text)
    assert says in str(error.value)


def test_units():
    assert Share(0.15).of(47_683) == 7_152 and Steps(10).of(4) == 4 and int(Tokens(25e9)) == 25_000_000_000
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        Share(1.5)


def test_a_part_is_made_once_and_again_when_its_inputs_change(tmp_path):
    made = []

    def make(folder: Path) -> int:
        folder.mkdir(parents=True, exist_ok=True)
        made.append(sorted(path.name for path in folder.iterdir()))
        (folder / f"train-{len(made)}.bin").write_text("")
        return len(made)

    for text, expected in (("a", 1), ("a", 1), ("b", 2), ("a", 3)):
        with RunFolder(tmp_path / "run") as run:
            assert run.cached("shards/texts", {"text": text}, make) == expected
    assert made == [[], [], []], "a part whose inputs changed begins from nothing"


def test_a_part_that_cannot_be_made_from_new_inputs_stays_what_it_was(tmp_path):
    def make(folder: Path) -> str:
        folder.mkdir(parents=True)
        (folder / "tokenizer.json").write_text("old")
        return "old"

    def fail(folder: Path) -> None:
        folder.mkdir(parents=True)
        raise KeyboardInterrupt

    with RunFolder(tmp_path) as run:
        run.cached("tokenizer", {"n": 1}, make)
        with pytest.raises(KeyboardInterrupt):
            run.cached("tokenizer", {"n": 2}, fail)
        assert (tmp_path / "tokenizer" / "tokenizer.json").read_text() == "old"
        assert run.outputs("tokenizer", {"n": 1}) == "old"
        run.cached("tokenizer", {"n": 2}, make)
        assert run.outputs("tokenizer", {"n": 2}) == "old"
        assert sorted(path.name for path in tmp_path.glob("[tp]*")) == ["parts", "tokenizer"]


def test_a_lasting_part_is_never_replaced_unasked(tmp_path):
    with RunFolder(tmp_path) as run:
        run.cached("phases/00-a", {"lr": 1, "deep": {"x": [1]}}, lambda folder: folder.mkdir(parents=True) or "a")
        with pytest.raises(RunError, match=r"lr was 1, not 2; deep.x.0 was 1, not 3") as error:
            run.refuse_change("phases/00-a", {"lr": 2, "deep": {"x": [3]}})
        assert "lilliput clean" in error.value.hint and (tmp_path / "phases" / "00-a").is_dir()
        run.remove("phases/00-a")
        run.refuse_change("phases/00-a", {"lr": 2})


def test_a_part_whose_files_are_gone_is_made_again(tmp_path):
    made = []

    def make(folder: Path) -> str:
        made.append(len(made))
        folder.mkdir(exist_ok=True)
        (folder / "tokenizer.json").write_text("whole")
        return "tokenizer.json"

    def whole(folder: Path, outputs: str) -> bool:
        return (folder / outputs).is_file()

    for _ in range(2):
        with RunFolder(tmp_path) as run:
            assert run.cached("tokenizer", {"n": 1}, make, whole) == "tokenizer.json"
    (tmp_path / "tokenizer" / "tokenizer.json").unlink()
    with RunFolder(tmp_path) as run:
        run.cached("tokenizer", {"n": 1}, make, whole)
    assert made == [0, 1] and (tmp_path / "tokenizer" / "tokenizer.json").is_file()


def test_a_damaged_record_is_named(tmp_path):
    with pytest.raises(RunError, match="damaged") as error, RunFolder(tmp_path) as run:
        (tmp_path / "parts").mkdir()
        (tmp_path / "parts" / "tokenizer.json").write_text("{half")
        run.cached("tokenizer", {"n": 1}, lambda folder: None)
    assert error.value.where.endswith("parts/tokenizer.json")


def test_recipes_that_cannot_end_well_are_refused_at_once(tmp_path):
    recipe = tiny.recipe(tmp_path)
    with pytest.raises(RecipeError, match="the tokenizer has 400 tokens, the model 300"):
        replace(recipe, tokenizer=replace(recipe.tokenizer, vocab=400))
    for changes, says in (({"suite": "quickstrat"}, "quickstrat"), ({"heldout": "text"}, "no corpus 'text'")):
        with pytest.raises(RecipeError, match=says):
            replace(recipe, timeline=(replace(recipe.timeline[2], **changes),))
    with pytest.raises(RecipeError, match="no dtype 'FP8'"):
        replace(recipe.timeline[2], dtype="FP8")
    with pytest.raises(LilliputError, match="mixer"):
        replace(recipe, model=tiny.GQA_SPEC)  # HGRN2's layout cannot express it


def test_an_interrupted_part_finds_what_it_left(tmp_path):
    def fail(folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "tokenizer.json").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), RunFolder(tmp_path) as run:
        run.cached("tokenizer", {"n": 1}, fail)
    with RunFolder(tmp_path) as run:
        assert run.cached("tokenizer", {"n": 1}, lambda folder: [path.name for path in folder.iterdir()]) == [
            "tokenizer.json"
        ]


def test_left_over_partial_folders_are_swept(tmp_path):
    with RunFolder(tmp_path) as run:
        (tmp_path / f"tokenizer{PARTIAL}").mkdir()
        run.cached("tokenizer", {"n": 1}, lambda folder: None)
    assert not (tmp_path / f"tokenizer{PARTIAL}").exists()


def test_two_processes_cannot_have_one_run(tmp_path):
    code = "import sys; from pathlib import Path; from lilliput.base.run_folder import RunFolder\n"
    code += "with RunFolder(Path(sys.argv[1])): pass"
    with RunFolder(tmp_path):
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert other.returncode != 0 and "another process is working on this run" in other.stderr
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 0


def test_a_run_of_another_format_is_refused(tmp_path):
    write_json(tmp_path / "run.json", {"format": 99})
    with pytest.raises(RunError, match="format 99"), RunFolder(tmp_path):
        pass


@pytest.mark.skipif(os.name == "nt", reason="permissions differ")
def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot be written") as error, RunFolder(tmp_path / "file" / "run"):
        pass
    assert "--out" in error.value.hint
