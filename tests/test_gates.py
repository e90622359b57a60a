"""What is somebody's own is never removed or replaced, and code from elsewhere is never run unasked."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_commands import contents, lilliput, refused, workshop

from lilliput.base.files import sha256, with_checksum, write_json
from lilliput.base.own_code import digest_of
from lilliput.base.ownership import foreign, is_written
from lilliput.publish.remote_code import check_code

pytestmark = pytest.mark.slow

PARTS = ("tokenizer", "shards/texts", "phases/00-pretrain", "releases/tiny-base", "evals")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A workshop with a finished run, `good`."""
    folder = workshop(tmp_path_factory.mktemp("shop"))
    lilliput("run", "mine.py", "--machine", "small.py", "--out", "good", folder=folder)
    return folder


@pytest.fixture
def run(shop):
    """A copy of the finished run."""
    shutil.rmtree(shop / "run", ignore_errors=True)
    shutil.copytree(shop / "good", shop / "run")
    return shop / "run"


def change(file: Path, *path: object, to: object) -> None:
    """Change one entry of a JSON file, as somebody who knows how to seal it would."""
    plain = json.loads(file.read_text())
    plain.pop("sha256", None)
    inner = plain
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    write_json(file, with_checksum(plain))


def test_every_file_of_a_run_is_one_that_runs_write(shop):
    assert foreign(shop / "good", ".") == []
    assert not is_written("releases/tiny-base/NOTES.md") and not is_written("texts/a.jsonl")
    assert is_written("phases/00-pretrain.before.partial/final.replaced.partial/weights.safetensors")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("command", ["tokenizer", "data", "train", "run"])
def test_a_folder_that_is_no_run_is_left_as_it_is(shop, tmp_path, part, command):
    own = tmp_path / "own"
    (own / part).mkdir(parents=True)
    (own / part / "thesis.tex").write_text("ten years of work")
    before = contents(own)
    refused(command, "mine.py", "--out", own, folder=shop, says="is not a run and not empty", where=str(own))
    assert contents(own) == before


@pytest.mark.parametrize("plain", [{"format": 1}, {"name": "somebody else's"}, [1], "text", None])
def test_nor_one_whose_run_json_is_somebody_elses(shop, tmp_path, plain):
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "thesis.tex").write_text("ten years of work")
    (tmp_path / "run.json").write_text(json.dumps(plain))
    before = contents(tmp_path)
    refused("tokenizer", "mine.py", "--out", tmp_path, folder=shop)
    assert {name: text for name, text in contents(tmp_path).items() if name in before} == before


def test_a_new_an_empty_and_a_just_begun_folder_become_runs(shop, tmp_path):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".DS_Store").write_text("")
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "run.json.partial").write_text("{")
    for name in ("new", "hidden", "killed"):
        lilliput("tokenizer", "mine.py", "--out", tmp_path / name, folder=shop)


def test_a_sweep_takes_only_a_sweep_or_an_empty_folder(shop, tmp_path):
    (tmp_path / "table.md").write_text("ten years of work")
    words = (
        "sweep",
        "mine.py",
        "--over",
        "timeline.pretrain.optimizer.lr=1e-3,1e-2",
        "--machine",
        "small.py",
        "--out",
        tmp_path,
    )
    refused(*words, folder=shop, says="is not a sweep and not empty: it holds table.md")
    assert contents(tmp_path) == {"table.md": b"ten years of work"}


def test_a_damaged_record_never_costs_a_trained_phase(shop, run):
    record = run / "parts" / "phases.00-pretrain.json"
    whole = record.read_bytes()
    record.write_text(record.read_text()[:100])
    err = refused("train", "run", folder=shop, says="damaged")
    assert "lilliput clean run --from phases/00-pretrain" in err
    record.unlink()
    before = contents(run / "phases")
    refused("train", "run", folder=shop, says="no record says that this run made it")
    assert contents(run / "phases") == before
    record.write_bytes(whole)
    lilliput("train", "run", folder=shop)
    record.write_text("[]")
    lilliput("clean", "run", "--from", "phases/00-pretrain", "--yes", folder=shop)  # what the hint says works
    assert not (run / "phases" / "00-pretrain").exists() and not record.exists()
    lilliput("run", "run", folder=shop)
    assert contents(run / "phases" / "00-pretrain" / "final") == {
        name.removeprefix("00-pretrain/final/"): data for name, data in before.items() if "/final/" in name
    }


PLACES = {"phase": ("timeline", 0, "name"), "release": ("timeline", 2, "name"), "recipe": ("name",), "corpus": None}


@pytest.mark.parametrize("place", PLACES)
def test_no_name_in_a_recipe_json_leads_out_of_the_run(shop, run, place):
    own = shop / "thesis"
    own.mkdir(exist_ok=True)
    (own / "thesis.tex").write_text("ten years of work")
    file, path = run / "recipe.json", PLACES[place]
    if path is None:
        corpora = json.loads(file.read_text())["corpora"]
        change(file, "corpora", to={"../../thesis": corpora["texts"], **corpora})
    else:
        change(file, *path, to="../../thesis")
    for command in ("data run", "publish run", "clean run --shards --yes", "clean run --from tokenizer --yes"):
        refused(*command.split(), folder=shop, says="cannot be named")
    assert contents(own) == {"thesis.tex": b"ten years of work"}


def test_clean_takes_what_the_run_wrote_and_nothing_else(shop, run, tmp_path):
    own = {
        "notes.partial": "own",
        "texts/draft.partial": "own",
        "shards/mine/a.bin": "own",
        "phases/old/checkpoints/step-000001/thesis.tex": "own",
    }
    for name, text in own.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(text)
    (run / "report.html.partial").write_text("half")
    said = lilliput("clean", "run", "--shards", "--yes", folder=shop).out
    assert "shards/texts" in said and "report.html.partial" in said and "phases/00-pretrain/checkpoints" in said
    assert all((run / name).read_text() == text for name, text in own.items())
    (run / "releases" / "tiny-base" / "model.gguf").write_text("converted by hand")
    before = contents(run)
    words = ("clean", "run", "--from", "releases/tiny-base", "--yes")
    refused(
        *words, folder=shop, says="releases/tiny-base holds files that no run writes: releases/tiny-base/model.gguf"
    )
    assert contents(run) == before
    (tmp_path / "recipe.json").write_text("{}")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "thesis.tex").write_text("own")
    refused("clean", tmp_path, "--shards", "--yes", folder=shop)
    assert (tmp_path / "shards" / "thesis.tex").is_file()


def test_a_release_that_is_made_again_keeps_what_was_put_into_it(shop, run):
    (run / "releases" / "tiny-base" / "model.gguf").write_text("converted by hand")
    (run / "releases" / "tiny-base" / "config.json").write_text("{}")  # so that it has to be exported again
    refused("publish", "run", folder=shop, says="model.gguf")
    assert (run / "releases" / "tiny-base" / "model.gguf").read_text() == "converted by hand"
    (run / "releases" / "tiny-base" / "model.gguf").rename(shop / "model.gguf")
    lilliput("publish", "run", folder=shop)


@pytest.mark.parametrize("part", [*PARTS, "shards", "phases", "cards", "parts"])
def test_no_symbolic_link_is_followed(shop, run, tmp_path, part):
    theirs = tmp_path / "theirs"
    shutil.move(run / part, theirs)
    (theirs / "thesis.tex").write_text("ten years of work")
    (run / part).symlink_to(theirs)
    before = contents(theirs)
    for command in ("run run", "clean run --shards --yes"):
        refused(*command.split(), folder=shop, says="symbolic link")
    assert contents(theirs) == before


@pytest.fixture
def canary(tmp_path):
    """A file that appears when code of a stranger runs."""
    return tmp_path / "canary"


def evil(canary: Path) -> str:
    """Code of a stranger."""
    return f"""
from dataclasses import dataclass
from pathlib import Path
Path({str(canary)!r}).write_text("ran")
@dataclass(frozen=True)
class Spec:
    pass
"""


FOREIGN = ["evil:Spec", "run.evil:Spec", "venv.__main__:x", "lilliput.__main__:main", "antigravity:x"]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_type_of_a_recipe_json_is_never_imported(shop, run, canary, name):
    (shop / "evil.py").write_text(evil(canary))
    (run / "evil.py").write_text(evil(canary))
    (run / "__init__.py").write_text("")
    change(run / "recipe.json", "tokenizer", to={"type": name})
    for command in ("report run", "plan run", "compare run run", "publish run", "eval run"):
        refused(*command.split(), folder=shop, says="not one of Lilliput's")
    assert not canary.exists()


def test_a_command_json_runs_no_file(shop, run, canary):
    (shop / "evil.py").write_text(evil(canary) + "recipe = None\n")
    change(run / "command.json", "command", "recipe", to="evil.py")
    for command in ("plan", "publish", "tokenizer", "data"):
        lilliput(command, "run", "--set", "seed=0", folder=shop)
    assert not canary.exists()


def test_own_types_are_known_where_the_recipe_file_is_typed(shop, tmp_path):
    mine = (
        (shop / "mine.py").read_text()
        + """
from dataclasses import dataclass
@dataclass(frozen=True, kw_only=True)
class Loud:
    source: TextFiles
    def documents(self):
        return self.source.documents()
    def identity(self):
        return self.source.identity()
recipe = replace(recipe, corpora={"texts": Loud(source=recipe.corpora["texts"]), "chats": recipe.corpora["chats"]})
"""
    )
    (shop / "loud.py").write_text(mine)
    for _ in range(2):
        lilliput("run", "loud.py", "--machine", "small.py", "--out", tmp_path / "run", folder=shop)
    refused("data", tmp_path / "run", folder=shop, says="its own (loud:Loud), and the run's code")
    (tmp_path / "run" / "code.json").unlink()  # as in runs that earlier versions made
    err = refused("data", tmp_path / "run", folder=shop, says="the type 'loud:Loud' is not one of Lilliput's")
    assert "name the recipe file" in err


@pytest.mark.parametrize("place", ["tokenizer", "corpora", "timeline"])
def test_code_that_a_run_brings_along_is_never_run_unasked(shop, run, canary, place):
    hashes = {"evil.py": sha256(shop / "evil.py")} if (shop / "evil.py").write_text(evil(canary)) else {}
    folder = run / "code" / digest_of("evil.py", hashes)[:16]
    folder.mkdir(parents=True)
    shutil.copy(shop / "evil.py", folder)
    write_json(run / "code.json", with_checksum({"recipe": "evil.py", "files": hashes}))
    path = {"tokenizer": ("tokenizer",), "corpora": ("corpora", "texts"), "timeline": ("timeline", 0, "schedule")}[
        place
    ]
    change(run / "recipe.json", *path, to={"type": "evil:Spec"})
    for command in ("tokenizer", "data", "train", "publish", "run", "eval", "plan"):
        refused(command, "run", folder=shop, says="may not run yet", where=str(folder.relative_to(shop)))
    refused("sweep", "run", "--over", "seed=1,2", folder=shop, says="may not run yet")
    for command in ("report run", "compare run run", "runs .", "clean run", "generate run --max-new-tokens 2"):
        lilliput(*command.split(), folder=shop)
    assert not canary.exists()
    refused("data", "run", "--trust-code", folder=shop)  # it is no tokenizer, corpus or schedule, but it ran
    assert canary.exists()


def test_a_models_code_runs_only_if_it_is_ours_or_trusted(shop, run, canary):
    release = run / "releases" / "tiny-base"
    assert check_code(release) is False
    (release / "lilliput.json").unlink()
    (release / "modeling_evil.py").write_text(evil(canary))
    words = ("eval", release, "--text", "texts/a.jsonl", "--limit", 3)
    refused(*words, folder=shop, says="brings code that is not Lilliput's: modeling_evil.py")
    (release / "modeling_evil.py").unlink()
    config = json.loads((release / "config.json").read_text())
    for entry in ({"AutoModelForCausalLM": "modeling_evil.Spec"}, {"AutoConfig": "owner/name--evil.Spec"}, "x"):
        write_json(release / "config.json", config | {"auto_map": entry})
        refused(*words, folder=shop, says="config.json: auto_map")
    write_json(release / "config.json", config | {"attn_implementation": "owner/kernel"})
    refused(*words, folder=shop, says="attn_implementation")
    write_json(release / "config.json", config)
    (release / "custom_generate").mkdir()
    (release / "custom_generate" / "generate.py").write_text(evil(canary))
    refused(*words, folder=shop, says="custom_generate/generate.py")
    assert not canary.exists()
    refused(*words, "--trust-remote-code", folder=shop, says="cannot be loaded")  # it has no generate(), but it ran
    assert canary.exists()


def test_hashes_come_first(shop, run, canary):
    release = run / "releases" / "tiny-base"
    (release / "tokenizer.json").write_text("{}")
    refused("eval", release, "--text", "texts/a.jsonl", folder=shop, says="its hash differs")


def test_looking_asks_no_network(shop, run):
    """The hub is not even tried for a model that a recipe begins with: the error is the same without a switch."""
    change(
        run / "recipe.json",
        "model",
        to={"type": "lilliput.publish.pretrained:PretrainedModel", "checkpoint": "owner/name", "revision": None},
    )
    for command in (("plan", "run"), ("report", "run"), ("compare", "run", "run")):
        refused(*command, folder=shop, says="looking at a recipe asks no network")
    assert "run" in lilliput("runs", ".", folder=shop).out


def test_one_odd_folder_hides_no_other(shop, run):
    for name, text in (("odd", "{"), ("older", "[" * 900 + "]" * 900), ("list", "[1]"), ("null", '{"name": null}')):
        (shop / "all" / name).mkdir(parents=True, exist_ok=True)
        (shop / "all" / name / "recipe.json").write_text(text)
    shutil.copytree(run, shop / "all" / "whole", dirs_exist_ok=True)
    said = lilliput("runs", "all", folder=shop).out
    assert "published" in said and all(
        f"all/{name} cannot be shown" in said for name in ("odd", "older", "list", "null")
    )
    rows = json.loads(lilliput("runs", "all", "--json", folder=shop).out)
    assert len(rows) == 5 and sum("error" in row for row in rows) == 4


def test_a_file_that_is_named_for_output_is_replaced_only_if_it_is_output(shop, run, tmp_path):
    for option, command in (("--page", "compare run run"), ("--records", "eval run --text texts/a.jsonl --limit 3")):
        own = tmp_path / "thesis.tex"
        own.write_text("ten years of work")
        refused(*command.split(), option, own, folder=shop, says="already exists", where=str(own))
        assert own.read_text() == "ten years of work"
        for _ in range(2):
            lilliput(*command.split(), option, tmp_path / "fresh", folder=shop)
        (tmp_path / "fresh").unlink()
