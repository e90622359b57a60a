"""`lilliput bench`: what it lists, and that a script runs as Python alone would run it."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import tiny_commands
import tiny_releases

from lilliput.base.files import new_folder
from lilliput.publish.export import Generation, export

ROOT = Path(__file__).parents[2]
ECHO = '''"""What does a script see?"""

import json, os, sys

settings = {name: os.environ.get(name) for name in ("OMP_WAIT_POLICY", "LILLIPUT_TEST", "PYTHONPATH")}
print(json.dumps([sys.argv, sys.path[0], settings]))
sys.exit(7)
'''


@pytest.fixture
def installed(tmp_path):
    """The package as a wheel lays it out, with one benchmark more."""
    shutil.copytree(ROOT / "lilliput", tmp_path / "lilliput", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "benchmarks", tmp_path / "lilliput" / "benchmarks")
    (tmp_path / "lilliput" / "benchmarks" / "echo.py").write_text(ECHO)
    return tmp_path


def test_every_script_is_listed_with_its_question():
    code = "import sys; sys.argv = ['lilliput', 'bench']; from lilliput.cli import app; app(standalone_mode=False)"
    code += "; assert not {'torch', 'numpy', 'transformers'} & set(sys.modules), 'a listing imports nothing heavy'"
    listing = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert listing.returncode == 0, listing.stderr
    lines = dict(line.split("  ", 1) for line in listing.stdout.splitlines())
    assert {name.strip() for name in lines} == {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert all(question.strip().endswith("?") for question in lines.values())


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_every_script_finds_what_it_imports_and_explains_itself(script):
    settings = {"cwd": ROOT, "env": os.environ | {"PYTHONPATH": str(ROOT)}, "capture_output": True, "text": True}
    explained = subprocess.run([sys.executable, str(script), "--help"], **settings)
    assert explained.returncode == 0, explained.stderr
    assert "usage:" in explained.stdout


@pytest.mark.parametrize("arguments", [["--help", "-h", "--", "a b", "", "--device=cpu"], []])
def test_a_script_runs_as_python_alone_would_run_it(installed, arguments):
    script = installed / "lilliput" / "benchmarks" / "echo.py"
    environment = os.environ | {"PYTHONPATH": str(installed), "LILLIPUT_TEST": "1"}
    environment.pop("OMP_WAIT_POLICY")
    ways = [[sys.executable, str(script)], [sys.executable, "-m", "lilliput", "bench", "echo"]]
    alone, ours = (
        subprocess.run([*way, *arguments], cwd=installed, env=environment, capture_output=True, text=True)
        for way in ways
    )
    assert ours.returncode == alone.returncode == 7, ours.stderr
    assert ours.stdout == alone.stdout and json.loads(ours.stdout)[0] == [str(script), *arguments]


def test_a_checkout_measures_itself(tmp_path):
    code = "import lilliput, sys; sys.exit(lilliput.__file__)"
    shutil.copytree(ROOT / "lilliput", tmp_path / "lilliput", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "echo.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "lilliput", "bench", "echo"]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.stderr.strip() == str(tmp_path / "lilliput" / "__init__.py")


@pytest.mark.slow
def test_steps_are_timed_on_a_processor(tmp_path):
    words = ["step", "slm-10m", "--steps", 12, "--device", "cpu", "--out", tmp_path / "step.json"]
    assert "slm-10m" in tiny_commands.lilliput("bench", *words, folder=tmp_path).out
    found = json.loads((tmp_path / "step.json").read_text())
    assert found["environment"]["packages"]["torch"] and "slm-10m" in found["results"]


@pytest.mark.parametrize(("dtype", "transformers", "gguf"), [("fp16", "fp16", "F16"), ("int8", "fp32", "Q8_0")])
def test_decoding_is_timed_beside_transformers_under_the_precision_that_each_has(tmp_path, dtype, transformers, gguf):
    out, recipes = tmp_path / "decode.json", ["quickstart", "quickstart-gqa"]
    words = ["--dtype", dtype, "--narrow", "--contexts", 0, 8, "--tokens", 3, "--repeats", 1, "--out", out]
    said = tiny_commands.lilliput("bench", "decode", *recipes, *words, folder=tmp_path).out
    found = json.loads(out.read_text())
    assert [(row.pop("recipe"), row.pop("context")) for row in found["rows"]] == [
        (recipe, context) for recipe in recipes for context in (0, 8)
    ]
    both = {f"ours, {dtype}", f"transformers, {transformers}"}
    attention = both | {f"llama.cpp, {gguf}"} if find_spec("llama_cpp") else both
    assert [set(row) for row in found["rows"]] == [both, both, attention, attention]
    assert all(speed > 0 for row in found["rows"] for speed in row.values())
    assert (found["dtype"], found["tokens"], found["narrow"]) == (dtype, 3, True)
    assert found["environment"]["packages"]["torch"]
    assert all(recipe in said for recipe in recipes) and said.count("llama.cpp is not asked") == (
        1 if find_spec("llama_cpp") else 2
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qwen3", "hgrn2"])
def test_greedy_text_is_compared_for_one_row_and_for_several(tmp_path, kind):
    spec, layout = tiny_releases.RELEASES[kind]
    with new_folder(tmp_path / "model") as partial:
        about = {"layout": layout, "dtype": "F32", "generation": Generation(), "chat_template": None}
        export(tiny_releases.awake(spec), tiny_releases.tokenizer(), partial, **about)
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 20)
    sizes = ["--prompts", 6, "--length", 5, "--tokens", 7, "--rows", 1, 6]
    words = ["model", "text.txt", "--dtypes", "fp32", "int8", *sizes, "--out", "found.json"]
    tiny_commands.lilliput("bench", "greedy_precision", *words, folder=tmp_path)
    found = json.loads((tmp_path / "found.json").read_text())["found"]
    assert list(found) == ["fp32, 1 row", "fp32, 6 rows", "int8, 1 row", "int8, 6 rows"]
    assert all(one["tokens"] == 6 * 7 for one in found.values())
    for label in ("fp32, 1 row", "fp32, 6 rows"):
        assert found[label]["same_tokens"] == found[label]["chosen_by_fp32"] == 1


def test_an_unknown_name_gets_the_nearest_ones(tmp_path):
    tiny_commands.refused("bench", "scan-gird", folder=tmp_path, says="nearest names: scan_grid", where="bench")
    tiny_commands.refused("bench", "xyz", "--help", folder=tmp_path, says="`lilliput bench` lists them")
