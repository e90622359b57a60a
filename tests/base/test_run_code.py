"""A run keeps the Python files of its recipe; they run only where somebody allowed exactly these bytes."""

import json
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from lilliput.base import trust
from lilliput.base.code_files import code_at
from lilliput.base.errors import LilliputError, RecipeError, RunError
from lilliput.base.files import read_json, sha256, with_checksum, write_json
from lilliput.base.own_code import Code, Loaded, digest_of
from lilliput.base.ownership import foreign, is_written
from lilliput.base.run_code import UntrustedCodeError, code_for, read_code, waiting, write_code
from lilliput.base.run_folder import RunFolder
from lilliput.base.spec import to_plain
from lilliput.recipe import allow_code, read_recipe

TYPES = ["layers:Half"]
LAYERS = """
from dataclasses import dataclass
from pathlib import Path
with open({canary!r}, "a") as canary:
    canary.write("ran")
@dataclass(frozen=True, kw_only=True)
class Half:
    def __call__(self, step, steps):
        return 0.5
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A configuration of nobody yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.fixture
def canary(tmp_path):
    """A file that appears when code of the run is executed."""
    return tmp_path / "canary"


@pytest.fixture
def run(tmp_path, canary):
    """A run as a stranger would send it: its code has never run in this process."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "layers.py").write_text(LAYERS.format(canary=str(canary)))
    (tmp_path / "theirs" / "mine.py").write_text("import layers\n")
    recipe = to_plain(tiny.recipe(tmp_path / "texts"))
    recipe["timeline"][0]["schedule"] = {"type": TYPES[0]}
    with RunFolder(tmp_path / "run") as opened:
        write_code(opened, code_at(tmp_path / "theirs" / "mine.py"))
        opened.write("recipe.json", recipe)
    return tmp_path / "run"


def code_folder(run: Path) -> Path:
    return next((run / "code").iterdir())


def record(run: Path, **files: str) -> None:
    """Let a run say, as somebody would who knows how, that these are its files."""
    hashes = read_json(run / "code.json")["files"] | files
    folder = code_folder(run)
    folder.rename(folder.with_name(digest_of("mine.py", hashes)[:16]))
    write_json(run / "code.json", with_checksum({"recipe": "mine.py", "files": hashes}))


def test_it_is_kept_whole_and_earlier_files_stay(run, tmp_path):
    code = read_code(run)
    assert code is not None and code.files == code_at(tmp_path / "theirs" / "mine.py").files
    assert foreign(run, ".") == [] and is_written("code/0123456789abcdef.partial/parts/a.py")
    assert not is_written("code/mine.py") and not is_written("code/0123456789abcdef/notes.txt")
    changed = Code(main="mine.py", files={"mine.py": b""}, folder=tmp_path)
    with RunFolder(run) as opened:
        write_code(opened, changed)
        write_code(opened, changed)
    assert len(list((run / "code").iterdir())) == 2 and read_code(run).files == {"mine.py": b""}


def test_nothing_runs_unasked(run, canary):
    for ask in (read_recipe, lambda run: code_for(run, TYPES)):
        with pytest.raises(
            UntrustedCodeError, match=r"its own \(layers:Half\).*layers\.py [0-9a-f]{12}, mine\.py"
        ) as raised:
            ask(run)
        assert "--trust-code" in raised.value.hint and raised.value.where == str(code_folder(run))
    assert waiting(run, TYPES) is not None and read_code(run) is not None
    assert not canary.exists()


def test_it_runs_where_it_is_remembered_and_a_changed_byte_is_asked_about_again(run, canary, home):
    code = waiting(run, TYPES)
    trust.remember(code)
    assert (home / "lilliput" / "trusted-code.json").stat().st_mode & 0o777 == 0o600
    assert read_recipe(run).timeline[0].schedule(0, 1) == 0.5 and canary.read_text() == "ran"
    assert read_recipe(run) == read_recipe(run) and canary.read_text() == "ran", "and once"
    assert not (set(os.listdir(run)) & {"trusted-code.json"}), "the run does not know"
    layers = code_folder(run) / "layers.py"
    layers.write_text(layers.read_text().replace("0.5", "0.25"))
    record(run, **{"layers.py": sha256(layers)})
    with pytest.raises(UntrustedCodeError):
        read_recipe(run)
    assert canary.read_text() == "ran"
    allow_code(run)
    assert read_recipe(run).timeline[0].schedule(0, 1) == 0.25


def test_types_that_its_files_do_not_define_are_not_looked_for(run, canary):
    plain = read_json(run / "recipe.json")
    plain["timeline"][0]["schedule"] = {"type": "evil:Half"}
    write_json(run / "recipe.json", plain)
    with pytest.raises(RecipeError, match="the type 'evil:Half' is not one of Lilliput's"):
        read_recipe(run)
    assert not canary.exists()
    plain["timeline"][0]["schedule"] = to_plain(tiny.pretraining().schedule)
    write_json(run / "recipe.json", plain)
    assert read_recipe(run).name == "tiny" and not canary.exists(), "a recipe of Lilliput's parts needs no code"


def link_file(folder: Path) -> None:
    shutil.move(folder / "layers.py", folder.parent.parent / "elsewhere.py")
    (folder / "layers.py").symlink_to(folder.parent.parent / "elsewhere.py")


def link_folder(folder: Path) -> None:
    shutil.move(folder, folder.parent.parent / "elsewhere")
    folder.symlink_to(folder.parent.parent / "elsewhere")


def pipe(folder: Path) -> None:
    (folder / "layers.py").unlink()
    os.mkfifo(folder / "layers.py")


def huge(folder: Path) -> None:
    with open(folder / "layers.py", "ab") as file:
        file.truncate(1 << 40)


DAMAGE = {
    "a link": (link_file, "symbolic link"),
    "a linked folder": (link_folder, "symbolic link"),
    "a pipe": (pipe, "not a file"),
    "a huge file": (huge, "more than 1,048,576 bytes"),
    "a changed file": (lambda folder: (folder / "layers.py").write_text("import os\n"), "its hash differs"),
    "no file": (lambda folder: (folder / "layers.py").unlink(), "cannot be read"),
    "no folder": (shutil.rmtree, "cannot be read"),
    "a folder": (lambda folder: ((folder / "layers.py").unlink(), (folder / "layers.py").mkdir()), "cannot be read"),
    "something beside it": (lambda folder: (folder / "extra.py").write_text("import os\n"), "did not keep"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_code_is_refused_in_three_parts_also_where_it_is_trusted(run, canary, damage):
    trust.remember(read_code(run))
    DAMAGE[damage][0](code_folder(run))
    for ask in (read_recipe, allow_code, read_code):
        with pytest.raises(RunError, match=DAMAGE[damage][1]) as raised:
            ask(run)
        assert raised.value.hint and str(run) in raised.value.where
    assert not canary.exists()


NAMES = [
    "../evil.py",
    "/evil.py",
    "a/../../evil.py",
    "..",
    "a//b.py",
    "a\\b.py",
    "C:evil.py",
    "evil.txt",
    "\x1b[2J.py",
    "",
    "x" * 300 + ".py",
    "./evil.py",
    "a\0b.py",
]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_leads_elsewhere(run, canary, tmp_path, name):
    (tmp_path / "evil.py").write_text(LAYERS.format(canary=str(canary)))
    record(run, **{name: sha256(tmp_path / "evil.py")})
    with pytest.raises(LilliputError) as raised:
        allow_code(run)
    assert raised.value.hint and not canary.exists()


HASH = "0" * 64
RECORDS = [
    *({}, [], None, "x", 1),
    {"recipe": "mine.py"},
    {"recipe": "mine.py", "files": {}},
    {"recipe": [], "files": {"mine.py": HASH}},
    {"recipe": "mine.py", "files": {"mine.py": 7}},
    {"recipe": "mine.py", "files": {"mine.py": "../" * 30}},
    {"recipe": "mine.py", "files": {"mine.py": HASH} | {f"{number}.py": HASH for number in range(300)}},
]


@pytest.mark.parametrize("plain", RECORDS)
def test_a_damaged_record_is_refused(run, canary, plain):
    write_json(run / "code.json", plain)
    with pytest.raises(RunError) as raised:
        read_recipe(run)
    assert raised.value.where == str(run / "code.json") and raised.value.hint and not canary.exists()


def test_what_others_may_write_allows_nothing(run, home, canary):
    trust.remember(read_code(run))
    file = trust.file()
    file.chmod(0o666)
    with pytest.raises(RunError, match="others can write"):
        read_recipe(run)
    file.chmod(0o600)
    file.write_text("[]")
    with pytest.raises(RunError, match="not a JSON object"):
        read_recipe(run)
    assert not canary.exists()
    allow_code(run)
    assert read_recipe(run) and canary.exists(), "who allows it for one command is not asked what is remembered"


def test_the_bytes_that_were_verified_are_those_that_run(run, canary):
    code = read_code(run)
    for file in code_folder(run).iterdir():
        file.write_text("raise SystemExit('other bytes')\n")
    kind = Loaded(code).type_named(TYPES[0])
    assert kind is not None and kind()(0, 1) == 0.5 and canary.exists()


def test_parts_of_two_recipe_files_are_refused(tmp_path, run):
    from lilliput.base.own_code import code_of
    from lilliput.base.terminal import Terminal
    from lilliput.run.before_training import tokenizer

    recipe = tiny.recipe(tmp_path / "texts")
    phases = []
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(LAYERS.format(canary=str(tmp_path / "ran")))
        phases.append(tiny.pretraining(name=name, schedule=Loaded(code_at(tmp_path / f"{name}.py")).main.Half()))
    both = replace(recipe, timeline=tuple(phases))
    assert len(code_of(both)) == 2
    with pytest.raises(RecipeError, match="several recipe files: one.py, two.py"):
        tokenizer(both, tmp_path / "both", Terminal(quiet=True))
    assert not (tmp_path / "both").exists()


def test_a_recipe_that_is_none_asks_nothing(run, canary):
    for text in ("{", "[" * 900 + "]" * 900, '{"type": ["layers:Half"]}', json.dumps({"type": "layers:Half"})):
        (run / "recipe.json").write_text(text)
        with pytest.raises(LilliputError):
            read_recipe(run)
        with suppress(LilliputError):
            code_for(run, [])
    assert not canary.exists()
