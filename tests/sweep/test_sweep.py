"""A sweep as people run it: killed and continued, shared by two processes, grown, compared."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import tiny
from PIL import Image
from rich.console import Console

from lilliput.base.errors import MachineError, RecipeError, RunError
from lilliput.base.files import read_json
from lilliput.base.run_folder import RunFolder
from lilliput.recipe import load_recipe
from lilliput.sweep.axes import SweepAxis
from lilliput.sweep.variants import sweep
from lilliput.train.machine import Machine

MACHINE = Machine(device="cpu", precision="fp32", threads=1)
LR = SweepAxis(path="timeline.pretrain.optimizer.lr", values=("0.003", "0.03"))
INNER = SweepAxis(path="model.ffn.inner", values=("24", "48"))
RECIPE = """
import sys
sys.path.insert(0, {tests!r})
from dataclasses import replace
from pathlib import Path
import tiny

whole = tiny.recipe(Path({data!r}))
recipe = replace(whole, timeline=(tiny.pretraining(4, stages=whole.timeline[4].stages), whole.timeline[2]))
"""


def train(recipe, folder, overs=(LR, INNER), seeds=1, machine=MACHINE, **options):
    screen = StringIO()
    found = sweep(recipe, overs, seeds, folder, machine, Console(file=screen, width=200), **options)
    return found, screen.getvalue()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    file = folder / "swept.py"
    file.write_text(RECIPE.format(tests=str(Path(__file__).parents[1]), data=str(folder / "data")))
    (folder / "small.py").write_text(
        "from lilliput.train.machine import Machine\n\nmachine = Machine(device='cpu', precision='fp32', threads=1)\n"
    )
    return folder, load_recipe(str(file))


@pytest.fixture(scope="module")
def done(files):
    folder, recipe = files
    found, screen = train(recipe, folder / "straight", seeds=2)
    return recipe, folder / "straight", found, screen


def command(folder, *more):
    overs = [f"--over={over.path}={','.join(over.values)}" for over in (LR, INNER)]
    options = ["--seeds", "2", "--machine", "small.py", "--out", "killed", *more]
    return {
        "args": [sys.executable, "-m", "lilliput", "sweep", "swept.py", *overs, *options],
        "cwd": folder,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }


def without_time(found):
    return found | {"settings": [setting | {"seconds": None} for setting in found["settings"]]}


@pytest.mark.slow
def test_killed_and_started_twice_it_comes_to_the_same_numbers(files, done):
    folder, _ = files
    first = subprocess.Popen(**command(folder))
    deadline = time.monotonic() + 60
    while not len(list((folder / "killed").glob("*/phases/*/metrics.jsonl"))) >= 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = read_json(folder / "killed" / "results.json")
    assert 0 < before["finished"] < 8, "killed in the middle"
    ended = {path: path.stat().st_mtime_ns for path in (folder / "killed").glob("*/phases/*/final/*")}

    both = [subprocess.Popen(**command(folder, "--json")) for _ in range(2)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    found = [json.loads(out) for out, _ in said]
    assert without_time(found[0]) == without_time(found[1]) == without_time(done[2])
    assert read_json(folder / "killed" / "results.json") in found
    assert {path: path.stat().st_mtime_ns for path in ended} == ended, "finished variants are not done again"
    trained = [line for _, err in said for line in err.splitlines() if "tokens/s" in line]
    assert len(trained) == 8 - before["finished"], "each variant is trained by one process"
    noted = read_json(folder / "killed" / "lr=0.03,inner=24,seed=1" / "command.json")["command"]
    assert noted["recipe"] == "swept.py" and noted["overrides"] == [f"{LR.path}=0.03", f"{INNER.path}=24", "seed=1"]


@pytest.mark.slow
def test_results_are_a_table_a_picture_and_json(done):
    _, folder, found, screen = done
    assert read_json(folder / "results.json") == found and found["finished"] == found["variants"] == 8
    for setting in found["settings"]:
        assert setting["mean"] == pytest.approx(sum(setting["seeds"].values()) / 2)
        for seed, run in setting["folders"].items():
            lines = (folder / run / "phases" / "00-pretrain" / "metrics.jsonl").read_text().splitlines()
            assert json.loads(lines[-1])["heldout"]["texts"] == setting["seeds"][seed]
            assert read_json(folder / run / "recipe.json")["seed"] == int(seed)
    best = min(found["settings"], key=lambda setting: setting["mean"])
    assert best["name"] == found["best"] and f"{best['mean']:.4f}" in (folder / "table.md").read_text()
    with Image.open(folder / "plot.png") as picture:
        assert picture.size == (1200, 800)
    assert screen.count("begins") == screen.count("tokens/s") == 8 and "8 of 8 done" in screen and "left" in screen
    assert any("do not cost the same" in note for note in found["notes"]), "inner=24 costs less than inner=48"


def test_tokenizer_and_token_files_are_made_once(done):
    _, folder, _, _ = done
    for pattern in ("*/tokenizer/tokenizer.json", "*/shards/texts/train-00000.bin"):
        files = list(folder.glob(pattern))
        assert len(files) == 8 and len({file.stat().st_ino for file in files}) == 1, pattern


def test_a_variant_with_other_text_leaves_the_files_of_others_alone(files, tmp_path):
    _, recipe = files
    train(recipe, tmp_path, [SweepAxis(path="split.share", values=("0.1", "0.3"))])
    one, other = (tmp_path / f"share={share},seed=0" for share in ("0.1", "0.3"))
    first, second = ((run / "shards" / "texts" / "train-00000.bin") for run in (one, other))
    assert first.stat().st_ino != second.stat().st_ino and first.stat().st_size > second.stat().st_size
    assert first.stat().st_nlink == second.stat().st_nlink == 1


@pytest.mark.slow
def test_a_sweep_grows_by_values_and_seeds(done):
    recipe, folder, found, _ = done
    more, screen = train(recipe, folder, [LR, SweepAxis(path=INNER.path, values=("24", "32"))], seeds=1)
    assert screen.count("begins") == 4 and more["variants"] == 12 and more["seeds"] == [0, 1]
    old = {setting["name"]: setting["seeds"] for setting in found["settings"]}
    assert {name: seeds for one in more["settings"] if (name := one["name"]) in old for seeds in [one["seeds"]]} == old


def test_another_sweep_in_its_folder_is_refused(done):
    recipe, folder, _, _ = done
    before = (folder / "sweep.json").read_bytes()
    with pytest.raises(RunError, match="seed was 0, not 7"):
        train(replace(recipe, seed=7), folder)
    with pytest.raises(RunError, match="swept fields were .*lr, .*inner, not .*lr"):
        train(recipe, folder, [LR])
    with pytest.raises(RunError, match="is a run"):
        train(recipe, next(folder.glob("*seed=0")))
    assert (folder / "sweep.json").read_bytes() == before


def test_mistakes_are_refused_before_anything_is_written(files, tmp_path):
    _, recipe = files
    for overs, options, error in (
        ([SweepAxis(path=LR.path, values=("0.1", "high"))], {}, RecipeError),
        ([LR, SweepAxis(path="model.norm.size", values=("1", "2"))], {}, RecipeError),
        ([LR], {"metric": "pretrain.text"}, RecipeError),
        ([LR], {"fixed": [f"{LR.path}=1"]}, RecipeError),
        ([LR], {"seeds": 0}, RunError),
        ([LR], {"machine": Machine(device="abacus")}, MachineError),
    ):
        with pytest.raises(error) as refused:
            train(recipe, tmp_path / "sweep", overs, **options)
        assert refused.value.where and refused.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_nothing_is_trained_after_what_is_compared(files, tmp_path):
    """Nor prepared, nor counted; what is compared later goes on from there."""
    folder, _ = files
    recipe = tiny.recipe(folder / "data", tiny.GQA_SPEC)
    over = [SweepAxis(path=LR.path, values=("0.003", "0.01"))]
    found, _ = train(recipe, tmp_path, over)
    assert found["metric"]["name"] == "pretrain.texts" and found["finished"] == 2
    assert {setting["tokens"] for setting in found["settings"]} == {int(recipe.timeline[0].tokens)}
    for run in ("lr=0.003,seed=0", "lr=0.01,seed=0"):
        parts = {file.name for file in (tmp_path / run / "parts").iterdir()}
        assert parts == {"tokenizer.json", "shards.texts.json", "phases.00-pretrain.json"}
        assert len(read_json(tmp_path / run / "recipe.json")["timeline"]) == len(recipe.timeline)
    pretrained = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/phases/00-*/final/*")}
    later, _ = train(recipe, tmp_path, over, metric="sft.chats")
    assert later["finished"] == 2 and later["metric"]["unit"] == "nats per answer token"
    assert len(list(tmp_path.glob("*/phases/04-sft/final"))) == 2 and not list(tmp_path.glob("*/releases"))
    assert {file: file.stat().st_mtime_ns for file in pretrained} == pretrained
    assert without_time(train(recipe, tmp_path, over)[0]) == without_time(found)


def test_a_field_that_cannot_change_what_is_compared_is_refused(files, tmp_path):
    folder, _ = files
    recipe = tiny.recipe(folder / "data", tiny.GQA_SPEC)
    for path, values, way_out in (
        ("timeline.sft.optimizer.lr", ("0.1", "0.2"), "--metric sft.chats"),
        ("timeline.tiny-base.dtype", ("F32", "BF16"), "leave it out"),
    ):
        with pytest.raises(RecipeError, match=f"{path} cannot change pretrain.texts") as refused:
            train(recipe, tmp_path / "sweep", [LR, SweepAxis(path=path, values=values)])
        assert way_out in refused.value.hint
    assert not list(tmp_path.iterdir())


def test_mixers_are_compared_though_no_layout_has_both(files, tmp_path):
    """The recipe releases HGRN2; a sweep trains, and trains what no layout of it can express, too."""
    _, recipe = files
    mixer = SweepAxis(path="model.mixer", values=("HGRN2(heads=2)", "GQA(heads=4,kv_heads=2,head_width=8)"))
    found, said = train(recipe, tmp_path / "mixers", overs=[mixer])
    one, other = found["settings"]
    assert found["finished"] == 2 and one["parameters"] != other["parameters"] and "without their releases" in said
    assert "not models of one size" in " ".join(found["notes"]) and "GQA(heads=4, kv_heads=2" in found["notes"][0]
    again, said = train(recipe, tmp_path / "mixers", overs=[mixer])
    assert without_time(again) == without_time(found) and "2 of them done" in said
    with pytest.raises(RecipeError, match="cannot be split into 3 heads") as refused:
        train(recipe, tmp_path / "none", overs=[replace(mixer, values=("HGRN2(heads=2)", "HGRN2(heads=3)"))])
    assert "mixer=HGRN2(heads=3)" in refused.value.where and not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_variant_that_diverges_is_a_result(files, tmp_path):
    _, recipe = files
    found, screen = train(recipe, tmp_path, [SweepAxis(path=LR.path, values=("0.01", "1e38"))])
    assert (found["finished"], found["failed"], found["best"]) == (1, 1, "lr=0.01")
    assert "not finite" in (tmp_path / "table.md").read_text() and "failed" in screen
    _, again = train(recipe, tmp_path, [SweepAxis(path=LR.path, values=("0.01", "1e38"))])
    assert "begins" not in again and "goes on" not in again


@pytest.mark.slow
def test_a_variant_that_somebody_else_holds_is_passed_over_and_waited_for(files, tmp_path):
    _, recipe = files
    held = RunFolder(tmp_path / "lr=0.003,seed=0")
    screen = StringIO()
    freed = []

    class Screen(StringIO):
        def write(self, text):
            if "2 variants, 0 of them done" in text:
                held.__enter__()
            if "waiting for lr=0.003,seed=0" in text:
                held.__exit__()
                freed.append(text)
            return screen.write(text)

    found = sweep(recipe, [LR], 1, tmp_path, MACHINE, Console(file=Screen(), width=200))
    said = screen.getvalue()
    assert freed and found["finished"] == 2
    assert said.index("lr=0.03,seed=0 begins") < said.index("waiting for") < said.index("lr=0.003,seed=0 begins")


def test_a_folder_of_somebodys_own_in_a_variant_is_not_replaced_by_a_link(files, tmp_path):
    _, recipe = files
    train(recipe, tmp_path, [LR])
    own = tmp_path / "lr=0.01,seed=0" / "tokenizer"
    with RunFolder(own.parent):
        own.mkdir()
    (own / "thesis.tex").write_text("ten years of work")
    with pytest.raises(RunError, match="tokenizer exists, but no record says that this run made it"):
        train(recipe, tmp_path, [SweepAxis(path=LR.path, values=("0.003", "0.01"))])
    assert (own / "thesis.tex").read_text() == "ten years of work"
