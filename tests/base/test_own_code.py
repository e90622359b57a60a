"""Recipe files and their neighbors run under names of their own, and what they were trained by is told by hashes."""

import inspect
import json
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from lilliput.base.code_files import code_at
from lilliput.base.code_hash import definitions
from lilliput.base.errors import LilliputError, RecipeError
from lilliput.base.own_code import LIBRARIES, Loaded, code_of, using
from lilliput.base.spec import from_plain, to_plain
from lilliput.recipe import load_recipe

SPEC = """
from dataclasses import dataclass
@dataclass(frozen=True, kw_only=True)
class {name}:
    size: int = {size}
    def told(self):
        return {told}
"""


def written(folder: Path, **files: str) -> Path:
    """A folder with these files; `mine.py` is what is loaded. `__` in a name stands for a slash."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "mine.py"


def run(path: Path) -> Loaded:
    return Loaded(code_at(path))


def test_neighbors_are_found_and_nothing_is_left_behind(tmp_path):
    before, path = set(sys.modules), list(sys.path)
    mine = written(
        tmp_path,
        mine="import layers\nimport parts.deep.mixer as m\nfrom parts import own\nfrom layers import *\n"
        "def late():\n    import later\n    return later.value\nvalue = (layers.a, m.b, own.c, a, late())\n",
        layers="import json\na = json.dumps(1)\n",
        parts__own="from .deep.mixer import b\nfrom . import other\nc = b + other.d\n",
        parts__other="d = 1\n",
        parts__deep__mixer="b = 2\n",
        later="import mine\nvalue = mine.__name__.rpartition('.')[2]\n",
        unused="raise SystemExit\n",
    )
    found = run(mine)
    assert found.main.value == ("1", 2, 3, "1", "mine")
    assert set(found.code.files) == {
        *("mine.py", "layers.py", "parts/own.py", "parts/other.py", "parts/deep/mixer.py", "later.py"),
    }
    new = set(sys.modules) - before
    assert new and all(name.startswith("_lilliput_own_code_") for name in new) and sys.path == path


@pytest.mark.parametrize("name", ["json", "torch", "lilliput", "random"])
def test_a_neighbor_shadows_no_library(tmp_path, name):
    shadow = {name: "raise RuntimeError('shadow')\n"}
    mine = written(tmp_path, mine=f"import {name}\nvalue = {name}.__name__\n", **shadow)
    assert run(mine).main.value == name
    assert list(run(mine).code.files) == ["mine.py"]


def test_libraries_do_not_see_neighbors(tmp_path):
    written(tmp_path, mine="import sqlparse_not_there_helper\nimport importlib\n", sqlparse_not_there_helper="")
    run(tmp_path / "mine.py")
    with pytest.raises(ImportError):
        __import__("sqlparse_not_there_helper")


def test_two_recipes_with_the_same_names_do_not_mix(tmp_path):
    found = {}
    for name, size in (("one", 1), ("two", 2)):
        layers = SPEC.format(name="Part", size=size, told=size)
        found[name] = run(written(tmp_path / name, mine="import layers\nvalue = layers.Part()\n", layers=layers))
    for one in (found["one"], found["two"], found["one"]):
        plain = to_plain(one.main.value)
        assert plain["type"] == "layers:Part" and code_of(one.main.value) == [one]
        with using(one):
            assert from_plain(plain) == one.main.value
            assert from_plain(plain).told() == one.main.value.size
    with pytest.raises(RecipeError, match="'layers:Part' is not one of Lilliput's"):
        from_plain(plain)
    assert not isinstance(found["one"].main.value, type(found["two"].main.value))


@pytest.mark.parametrize("name", ["mine:os", "mine:os.system", "mine:Path", "os:system", "mine:Part.__init__", "mine:"])
def test_only_classes_of_the_files_are_types(tmp_path, name):
    part = SPEC.format(name="Part", size=1, told=1)
    code = run(written(tmp_path, mine=f"import os\nfrom pathlib import Path\n{part}"))
    with using(code), pytest.raises(RecipeError):
        from_plain({"type": name})


def test_odd_names_of_recipe_files(tmp_path):
    for name in ("my-model", "my model", "größe", "mine.v2", "random"):
        (tmp_path / f"{name}.py").write_text(SPEC.format(name="Part", size=1, told=1) + "value = Part()\n")
        code = run(tmp_path / f"{name}.py")
        with using(code):
            assert to_plain(code.main.value)["type"] == f"{name}:Part" and from_plain(to_plain(code.main.value))


@pytest.mark.parametrize(
    ("text", "says"),
    [("1 +", "SyntaxError"), ("1 / 0", "ZeroDivisionError"), ("import broken", "NameError"), ("\0", "SyntaxError")],
)
def test_a_file_that_fails_is_told_in_three_parts(tmp_path, text, says):
    before = set(sys.modules)
    with pytest.raises(RecipeError, match=f"fails with ({says}|ValueError)") as raised:
        run(written(tmp_path, mine=text, broken="undefined_name\n"))
    assert raised.value.where == str(tmp_path / "mine.py") and set(sys.modules) == before


def test_limits_and_names(tmp_path, monkeypatch):
    monkeypatch.setenv("LILLIPUT_MAX_CODE_BYTES", "100")
    monkeypatch.setenv("LILLIPUT_MAX_CODE_FILES", "2")
    with pytest.raises(LilliputError, match="more than 100 bytes"):
        run(written(tmp_path, mine="#" * 101))
    with pytest.raises(LilliputError, match="more than 2 files"):
        run(written(tmp_path, mine="import a\nimport b\n", a="", b=""))
    with pytest.raises(LilliputError, match="does not exist"):
        run(tmp_path / "gone.py")
    with pytest.raises(LilliputError, match="taken by a module of Lilliput"):
        run(written(tmp_path, lilliput="").with_name("lilliput.py"))


def test_a_definition_is_the_text_that_a_class_rests_on(tmp_path):
    mine = """
from dataclasses import dataclass
import layers
FACTOR = 2
lr = 1e-3
def scaled(value):
    return FACTOR * value
@dataclass(frozen=True, kw_only=True)
class Part:
    size: int = 1
    def told(self):
        return layers.used(scaled(self.size))
value = Part()
"""
    layers = "import deep\ndef used(value):\n    return deep.shift + value\n"
    files = {"mine": mine, "layers": layers, "deep": "shift = 1\n"}

    def defined(**changed: str) -> dict[str, str]:
        return definitions({"a": run(written(tmp_path, **files | changed)).main.value})

    first = defined()
    assert list(first) == ["mine:Part"]
    assert first == defined(mine=mine.replace("lr = 1e-3", "lr = 2e-3  # a setting"))
    for file, old, new in (
        ("mine", "FACTOR = 2", "FACTOR = 3"),
        ("mine", "return FACTOR * value", "return FACTOR + value"),
        ("mine", "self.size))", "self.size + 1))"),
        ("mine", "value = Part()", "Part.more = 1\nvalue = Part()"),
        ("layers", "deep.shift + value", "deep.shift - value"),
        ("deep", "shift = 1", "shift = 2"),
        ("mine", "FACTOR = 2", "FACTOR = ' \x0c \u2028 '"),
    ):
        assert first != defined(**{file: files[file].replace(old, new)}), (file, old)
    assert first == defined()
    assert definitions(tiny.GQA_SPEC) == {}


def test_the_source_of_a_function_is_that_which_runs(tmp_path):
    text = "# \x0c \u2028 \u00e9\r\ndef one(value):\r\n    return value + 1\r\n"
    (tmp_path / "mine.py").write_bytes(text.encode())
    main = run(tmp_path / "mine.py").main
    (tmp_path / "mine.py").write_text("def other():\n    pass\n")
    assert inspect.getsource(main.one) == "def one(value):\n    return value + 1\n"
    compiled = torch.compile(main.one, backend="eager", fullgraph=True)
    assert compiled(torch.ones(2)).tolist() == [2.0, 2.0]


def test_a_recipe_file_is_read_anew_each_time(tmp_path):
    source = "from lilliput.recipes.quickstart import recipe as other\nfrom dataclasses import replace\n"
    path = written(tmp_path, mine=source + "recipe = replace(other, seed=1)\n")
    assert load_recipe(str(path)).seed == 1
    path.write_text(source + "recipe = replace(other, seed=2)\n")
    assert load_recipe(str(path)) == replace(load_recipe("quickstart"), seed=2)
    assert json.dumps(to_plain(load_recipe(str(path))))


def test_the_libraries_are_what_lilliput_needs():
    plain = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    imported = {"markdown-it-py": "markdown_it"}
    named = [line.partition(">")[0] for line in plain["project"]["dependencies"]]
    needed = {imported.get(name, name.replace("-", "_")) for name in named}
    assert needed | {"lilliput", "triton"} == LIBRARIES
