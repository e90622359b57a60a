"""Every command and every program of the README and the guides, run as a reader would, in order, page by page.

What would take hours is rehearsed: commands that train get `--shrink`, those of `own-text` a smaller model, and all a
folder for their run with the name that the page goes on to use.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

import pytest
import tiny_commands
import tiny_questions

from lilliput.data.corpora.documentation.installed import Installed
from lilliput.plan import plan
from lilliput.recipe import load_recipe, names

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]
MADE_BEFORE = ("README.md", "evaluate.md", "serve.md")
"""Pages that use the run of the quickstart and do not make it."""
TRAINING = {"run", "tokenizer", "data", "train", "publish", "sweep"}
SMALL = shlex.split(
    "--set tokenizer.vocab=1024 --set model.vocab=1024 --set model.layers=1 --set timeline.pretrain.tokens=20480"
)
OWN = ("own-text", "my_model", "my_mixer", "mine", "averaging")
"""Recipes that pages change or define, so that `--shrink` would hide what they say."""
ELSEWHERE = ("make ", "pip install", "python3 -m venv")
"""Commands that install: `make test` is how this test came to run."""
BLOCK = re.compile(r"^```(sh|python|yaml)\n(.*?)^```", flags=re.M | re.S)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """What the pages take to be there: texts, notes and evaluation data."""
    folder = tmp_path_factory.mktemp("desk")
    texts = folder / "texts"
    texts.mkdir()
    for number, document in enumerate(islice(Installed(distributions=("rich", "jinja2")).documents(), 80)):
        (texts / f"{number:04d}.txt").write_text(document.text, encoding="utf-8")
    asked = [f"What is {number} and {number}?" for number in range(60)]
    (folder / "talks.jsonl").write_text("".join(_talk(said, f"It is {2 * n}.") for n, said in enumerate(asked)))
    (folder / "notes.txt").write_text("A few notes.\n\nOf a few lines, to be scored.\n" * 9)
    tiny_questions.write_folder(folder / "eval")
    return folder


def _talk(question: str, answer: str) -> str:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages}) + "\n"


@pytest.fixture(scope="module")
def quickstart(desk):
    """The run that pages begin from which do not make it themselves."""
    execute("lilliput run quickstart --shrink --out runs/quickstart", desk)
    return desk


def rehearsed(command: str, folder: Path) -> str:
    """The command, as far as it trains a recipe, at a size that a test has time for."""
    command = command.replace("--more-tokens 5e6", "--more-tokens 4e4")
    words = shlex.split(command)
    if words[0] != "lilliput" or words[1] not in TRAINING or (folder / words[2] / "recipe.json").is_file():
        return command
    if {"--verify", "--push"} & set(words):  # which look at a folder
        return command
    name = words[2].removesuffix(".py")
    size = SMALL if name in OWN else [] if "--shrink" in words else ["--shrink"]
    out = [] if "--out" in words else ["--out", f"runs/{name}"]
    return f"{command} {shlex.join(size + out)}"


def execute(command: str, folder: Path) -> None:
    """Run a command in a folder; a plain one of ours in a process that has the libraries loaded already."""
    if command.startswith("lilliput ") and not set("|<>`$&;") & set(command):
        tiny_commands.lilliput(*shlex.split(command)[1:], folder=folder)
        return
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    made = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert made.returncode == 0, f"{command}\n{made.stdout[-2000:]}\n{made.stderr[-2000:]}"


def commands(block: str) -> list[str]:
    """The commands of a shell block, one a string, without comments."""
    found, open_quote = [], ""
    for line in block.replace("\\\n", " ").splitlines():
        whole = f"{open_quote}\n{line}" if open_quote else line
        try:
            shlex.split(whole, comments=True)
            open_quote = ""
        except ValueError:  # a quotation goes on in the next line
            open_quote = whole
            continue
        found.append(re.sub(r"\s+#.*$", "", whole) if "\n" not in whole else whole)
    return [command for command in found if command.strip() and not command.startswith("#")]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name in MADE_BEFORE], ids=lambda page: page.name)
def test_everything_on_a_page_works_after_the_quickstart(page, quickstart, tmp_path):
    follow(page, shutil.copytree(quickstart, tmp_path / "desk"))


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in MADE_BEFORE], ids=lambda page: page.name)
def test_everything_on_a_page_works(page, desk, tmp_path):
    follow(page, shutil.copytree(desk, tmp_path / "desk", ignore=shutil.ignore_patterns("runs")))


def follow(page: Path, folder: Path) -> None:
    """Do what a page says, in order; a server runs until the page ends."""
    with ExitStack() as servers:
        for kind, block in BLOCK.findall(page.read_text(encoding="utf-8")):
            if kind != "sh":
                named = re.match(r"# (\w+\.(?:py|yaml))\n", block)
                file = folder / (named.group(1) if named else "program.py")
                file.write_text(block, encoding="utf-8")
                if not named:
                    execute("python program.py", folder)
                continue
            for command in commands(block):
                if command.startswith("lilliput serve "):
                    servers.enter_context(serving(command, folder))
                elif not command.startswith(ELSEWHERE):
                    execute(rehearsed(command, folder), folder)


@contextmanager
def serving(command: str, folder: Path) -> Iterator[None]:
    """A server that is stopped by Ctrl-C at the end."""
    program = Path(sys.executable).parent / "lilliput"
    started = subprocess.Popen([program, *shlex.split(command)[1:]], cwd=folder, stdout=subprocess.PIPE, text=True)
    assert started.stdout
    with started.stdout:
        assert " serves " in started.stdout.readline(), "it says where, once it listens"
        try:
            yield
        finally:
            started.send_signal(signal.SIGINT)
            assert started.wait(60) == 0


def test_links_between_pages_lead_somewhere():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_sizes_in_the_readme_are_those_of_the_plans():
    rows = re.findall(r"^\| (`[a-z0-9-]+`(?:, `[a-z0-9-]+`)*) \|.*\| ([^|]+) \|$", PAGES[0].read_text(), flags=re.M)
    told = {name: sizes for names, sizes in rows for name in re.findall(r"`([^`]+)`", names)}
    assert set(told) == set(names("lilliput.recipes"))
    for name, sizes in told.items():
        made = plan(load_recipe(name))
        counts = [made["model"]["parameters"]["total"], *(each["parameters"]["total"] for each in made["releases"])]
        shown = counts if "instruct" in sizes or "→" in sizes else counts[:1]
        assert all(f"{count:,}" in sizes for count in shown), name


def test_the_reference_is_made_of_docstrings(tmp_path):
    modules = ["lilliput.recipe", "lilliput.api", "lilliput.train.phase"]
    made = subprocess.run([sys.executable, "-m", "pdoc", *modules, "-o", tmp_path], capture_output=True, text=True)
    assert made.returncode == 0 and "Warn" not in made.stderr, made.stderr
    assert "how likely each choice is after a context" in (tmp_path / "lilliput" / "api.html").read_text()
    assert "Positions of a row" in (tmp_path / "lilliput" / "train" / "phase.html").read_text(), "fields too"
