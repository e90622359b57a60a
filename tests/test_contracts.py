"""The shape of the house: which way imports go, how files are named and sized, what is shipped, pinned and promised."""

import ast
import importlib
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lilliput.cli import app
from lilliput.doctor import read_pins
from lilliput.recipe import load_machine, load_recipe, names

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "lilliput").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = read_pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc"}
SHORT = {
    "data/conversations.py",  # a seam
    "data/formats.py",  # the one choice between formats
    "data/splitmix64.py",  # one function of three files
    "growth/use_ema.py",  # a spec
    "objectives/fading.py",  # two functions of two files
    "objectives/routes/route.py",  # a seam
    "base/cuda_graph.py",  # the seam between training and decoding
    "ops/small_width.py",  # a device spec
    "ops/softcap.py",  # an op that is its own reference form
}
RETIRED = set(
    """
    Assessor BagLoss Begun Beside Charged Curated Curve Curation Gradients GraphedPasses GraphedUpdate GrowingFile
    Headroom HeldFolder HorizonBias Incident Joined JoinedChats Judge Kept Lane LaunchedPasses Leaving Line
    NextBag NoJudge NoRoom Nowhere Numbers Parted Passes Price Reading Saver SharedPasses Shown Sink StepRows
    Told Unwatched Verified Walk Watch WholeSteps Workers ZeroCentredRMSNorm advance applying apply_overrides as_one
    bag_embedding bag_loss begun bent charge charged check_items deepen detokenize_stream feed_forward
    filter_top_k_top_p gated_scan goes_on going_on
    headroom heaviest horizons initialise items_of joining kernels_take lasting_part let_go lettering licence licences
    logit_cap matrices_and_rest measurer micro_rows multiplied of_products opened_sink order_as_halves orthogonalise
    passes_of penalised promise put_aside put_back read_ahead refuse_missing scale_over sealed segments soft_cap
    take_up unsealed unwatched update_of waits watching with_kept_bytes write_on
    """.split()
)
"""Private words of before, for which the field has its own."""
CLAUSES = re.compile(r"(What|Whether|Of|Those|Who|Where|How)\b")
OWN_ARGUMENTS = ("cli/", "ops/", "publish/remote/", "run/pipeline.py")
"""Files that need no `Args`: commands, forms of one operation, code that releases carry; `pipeline` refers to `run`."""
PICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def test_imports_point_one_way():
    lint = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()"]
    made = subprocess.run([*lint, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_one_concept(path: Path):
    assert not DRAWERS & set(path.with_suffix("").relative_to(ROOT).parts), "name the concept"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, "a file of more than 400 lines is two concepts"


def test_no_import_goes_in_a_circle_or_to_the_package_root():
    graph = grimp.build_graph("lilliput", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert [module for module in imports if "lilliput" in imports[module]] == [], "the version is in lilliput.base"
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_no_mere_paragraph(path: Path):
    """Short ones are seams, specs, reference forms, recipes, machines and what makes a package."""
    short = len(path.read_text(encoding="utf-8").splitlines()) < 30
    name = path.relative_to(ROOT / "lilliput").as_posix()
    allowed = path.name in ("__init__.py", "__main__.py", "reference.py") or name in SHORT
    assert not short or allowed or name.startswith(("machines/", "recipes/", "train/loggers/"))


@pytest.mark.parametrize(
    "path",
    [path for path in (*MODULES, *TESTS) if path.parent.name != "remote"],  # published models keep their names
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_word_that_was_given_up_comes_back(path: Path):
    """Names of files, classes, functions, arguments and fields; `docs/glossary.md` has the words that are ours."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {path.stem, *(name for node in ast.walk(tree) for name in _defined(node))}
    assert not found & RETIRED, "docs/glossary.md"


def test_a_docstring_begins_with_a_verb_or_the_name_of_a_thing():
    found = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            texts = (each.value for each in _body(node) if isinstance(each, ast.Expr))
            if any(isinstance(text, ast.Constant) and CLAUSES.match(str(text.value)) for text in texts):
                found.add(path.relative_to(ROOT / "lilliput").as_posix())
    own = {name for name in found if not name.startswith("publish/remote/")}  # released code stays as it is
    assert not own, "begin with a verb or a noun phrase"


def test_a_public_function_of_four_parameters_says_what_they_are():
    for path in MODULES:
        name = path.relative_to(ROOT / "lilliput").as_posix()
        if name.startswith(OWN_ARGUMENTS):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                given = node.args
                few = len([*given.posonlyargs, *given.args, *given.kwonlyargs]) < 4
                assert few or "Args:" in (ast.get_docstring(node) or ""), f"{name}: {node.name}"


def _body(node: ast.AST) -> list[ast.AST]:
    body = getattr(node, "body", None)
    return body if isinstance(body, list) else []


def _defined(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
            yield node.name
        case ast.arg():
            yield node.arg
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
            yield name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_pickled(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not PICKLERS & {name.name.partition(".")[0] for name in node.names}, node.lineno
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] not in PICKLERS, node.lineno
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("torch", "save"), ("torch", "load")}, node.lineno
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant) and node.value.value is False, node.value.lineno


def test_license_is_there():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "Copyright 2026 The Lilliput authors" in text
    assert PROJECT["license"] == "Apache-2.0"


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.name)
def test_a_benchmark_asks_one_question_and_writes_what_it_found(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstring = ast.get_docstring(tree) or ""
    assert docstring.partition("\n")[0].endswith("?"), "the first line of the docstring is the question"
    assert "--out FILE.json" in docstring and f"benchmarks/{path.name}" in docstring, "then how to ask it"
    calls = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert any(call.startswith(("options.add_argument('--out'", "arguments.add_argument('--out'")) for call in calls)
    assert "environment()" in calls, "a figure names its versions and machine"


def test_wheel_holds_every_file_of_the_package_and_the_benchmarks(tmp_path: Path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    made = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    (wheel,) = tmp_path.glob("*.whl")
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    paths = [path.relative_to(ROOT) for path in (ROOT / "lilliput").rglob("*") if path.is_file()]
    left_out = re.compile(r"(^|/)(\.|__pycache__/)")
    package = {path.as_posix() for path in paths if not left_out.search(path.as_posix())}
    recipes = (ROOT / "benchmarks" / "full_shape_plain").glob("*.py")
    scripts = (path.relative_to(ROOT).as_posix() for path in (*BENCHMARKS, *recipes))
    assert shipped == package | {f"lilliput/{script}" for script in scripts}
    assert {"lilliput/recipes/quickstart.py", "lilliput/machines/cpu.py", "lilliput/benchmarks/loss.py"} <= shipped


@pytest.mark.parametrize("name", names("lilliput.recipes"))
def test_recipe_of_the_package_loads(name: str):
    assert load_recipe(name).name == name


@pytest.mark.parametrize("name", names("lilliput.machines"))
def test_machine_of_the_package_loads(name: str):
    load_machine(name)


def test_constraints_are_exact_pins_only():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) == len(PINS) and len(PINS) > 90
    for pin in pins:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", pin), pin


def test_constraints_pin_all_that_is_required():
    for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]:
        need = Requirement(line)
        assert need.specifier.contains(PINS[canonicalize_name(need.name)]), line


def test_constraints_pin_the_corpus_of_the_quickstart():
    corpus = importlib.import_module("lilliput.recipes.quickstart").DISTRIBUTIONS
    assert {canonicalize_name(name) for name in corpus} <= set(PINS)


def test_readme_commands_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    commands = typer.main.get_command(app).commands
    lines = _shell_lines((ROOT / "README.md").read_text(encoding="utf-8"))
    assert {"make quickstart", "make test"} <= set(lines)
    for line in lines:
        program, *words = shlex.split(line, comments=True)
        if program == "make":
            assert {word for word in words if "=" not in word} <= targets, line
        elif Path(program).name == "lilliput":
            command = commands[words[0]]
            options = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
            assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options | {"--help"}, line
            if words[0] in ("run", "plan") and not words[1].endswith(".py"):
                assert words[1] in names("lilliput.recipes"), line


def _shell_lines(markdown: str) -> list[str]:
    """Commands of the fenced shell blocks, continuation lines joined, comments and prompts left out."""
    blocks = re.findall(r"^```(?:sh|bash|shell|console)\n(.*?)^```", markdown, flags=re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines = [line.strip().removeprefix("$ ").partition("  #")[0].strip() for line in lines]
    return [line for line in lines if line and not line.startswith("#")]
