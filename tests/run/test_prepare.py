"""The token files of a run, interrupted: what the run folder keeps of them, takes up, and never mixes."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import tiny
from rich.console import Console
from tiny_commands import contents

from lilliput.base.files import write_json
from lilliput.base.run_folder import RunFolder
from lilliput.base.spec import to_plain
from lilliput.data.corpora.concatenated import Concatenated, at_revision
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Exact, Filtered, Length
from lilliput.data.corpora.hub import HubText
from lilliput.data.partial_shards import partial_folders
from lilliput.data.shard_writer import ShardWriter
from lilliput.data.split import Split
from lilliput.plan import plan
from lilliput.recipe import Recipe
from lilliput.run.listing import remove, shards, spare
from lilliput.run.prepare import Preparation
from lilliput.tokenizer.bpe import BPE

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHARD = 2_000


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Recipe:
    """Two files of texts, the first of them twice, which a filter drops; the training side has many shards."""
    folder = tmp_path_factory.mktemp("corpus")
    texts, _ = tiny.write_corpora(folder)
    rows = texts.read_text()
    (folder / "more.jsonl").write_text(rows.replace("Number", "Place"))
    source = TextFiles(paths=tuple(str(folder / name) for name in ("texts.jsonl", "more.jsonl", "texts.jsonl")))
    made = tiny.recipe(folder / "recipe")
    corpora = {"texts": Filtered(source=source, filters=(Length(at_least=1), Exact()))}
    tokenizer = BPE(vocab=made.model.shape.vocab, sample_bytes=20_000)
    return replace(made, corpora=corpora, tokenizer=tokenizer, split=Split(share=0.2), timeline=made.timeline[:3])


def prepare(recipe: Recipe, folder: Path) -> str:
    """Write the token files; what was said."""
    screen = StringIO()
    with RunFolder(folder) as run:
        Preparation(run, recipe, Console(file=screen, width=300), shard_tokens=SHARD).everything()
    return screen.getvalue()


def interrupt(recipe: Recipe, folder: Path, after: int) -> list[Path]:
    """Begin, and press Ctrl-C after so many documents; the folders of what is kept."""
    left, add = after, ShardWriter.add

    def stopping(*arguments, **named):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return add(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ShardWriter, "add", stopping)
        prepare(recipe, folder)
    return partial_folders(folder / "shards")


def record(folder: Path) -> dict:
    return RunFolder(folder).record("shards/texts")


@pytest.fixture(scope="module")
def straight(recipe, tmp_path_factory) -> Path:
    """A run whose token files were written without a break."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    prepare(recipe, folder)
    return folder


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from lilliput.base.files import read_json
from lilliput.base.spec import from_plain
from lilliput.data.shard_writer import ShardWriter
from run.test_prepare import prepare

left, add = int(sys.argv[4]), ShardWriter.add

def dying(*arguments, **named):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return add(*arguments, **named)

ShardWriter.add = dying
prepare(from_plain(read_json(Path(sys.argv[2]))), Path(sys.argv[3]))
"""


def test_a_killed_run_goes_on_to_the_same_token_files(recipe, straight, tmp_path) -> None:
    write_json(tmp_path / "recipe.json", to_plain(recipe))
    folder = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parents[1]), str(tmp_path / "recipe.json"), str(folder)]
    ended = subprocess.run([*command, "300"], capture_output=True, env=dict(os.environ), check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert len(partial_folders(folder / "shards")) == 1 and not record(folder)["done"]
    said = prepare(recipe, folder)
    assert "documents are encoded already, in" in said and "closed files" in said
    assert contents(folder / "shards") == contents(straight / "shards")
    outputs = record(folder)["outputs"]
    assert outputs == record(straight)["outputs"] and outputs["dropped"] == {"exact: duplicate": 200}
    assert "dropped: 200 exact: duplicate" in said


def test_other_filters_or_another_split_begin_anew(recipe, straight, tmp_path) -> None:
    folder = tmp_path / "run"
    (first,) = interrupt(recipe, folder, 300)
    (source,) = (corpus.source for corpus in recipe.corpora.values())
    other = replace(recipe, corpora={"texts": Filtered(source=source, filters=(Length(at_least=2), Exact()))})
    kept = contents(first)
    assert len(interrupt(other, folder, 10)) == 1, "no file of its own is closed yet"
    assert len(interrupt(other, folder, 300)) == 2 and contents(first) == kept
    assert "are encoded already" in prepare(other, folder)
    assert partial_folders(folder / "shards") == [], "what was begun goes when another is whole"
    assert contents(folder / "shards") == contents(straight / "shards"), "which here has the same documents"
    salted = replace(recipe, split=Split(share=0.2, salt="x"))
    assert "are encoded already" not in prepare(salted, folder)
    assert contents(folder / "shards") != contents(straight / "shards")


def test_what_is_replaced_stays_until_the_new_one_is_whole_and_that_goes_on(recipe, straight, tmp_path) -> None:
    folder = tmp_path / "run"
    other = replace(recipe, split=Split(share=0.2, salt="x"))
    prepare(other, folder)
    before, old = contents(folder / "shards" / "texts"), record(folder)
    (begun,) = interrupt(recipe, folder, 300)
    assert contents(folder / "shards" / "texts") == before
    assert (record(folder)["inputs"], record(folder)["done"]) == (old["inputs"], True)
    assert "are encoded already" in prepare(recipe, folder)
    assert contents(folder / "shards") == contents(straight / "shards") and not begun.exists()


def test_an_edited_text_begins_anew(recipe, tmp_path) -> None:
    text = tmp_path / "text.jsonl"
    data = Path(recipe.corpora["texts"].source.paths[0]).read_text()
    text.write_text(data)
    mine = replace(recipe, corpora={"texts": TextFiles(paths=(str(text),))})
    interrupt(mine, tmp_path / "run", 150)
    text.write_text(data.replace("care", "love"))
    assert "are encoded already" not in prepare(mine, tmp_path / "run")
    prepare(mine, tmp_path / "straight")
    assert contents(tmp_path / "run" / "shards") == contents(tmp_path / "straight" / "shards")


def test_a_license_that_is_named_later_changes_no_token_file(recipe, tmp_path) -> None:
    prepare(recipe, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").rglob("*.bin")}
    source = replace(recipe.corpora["texts"].source, license="cc-by-4.0")
    named = replace(recipe, corpora={"texts": replace(recipe.corpora["texts"], source=source)})
    assert "encoding" not in prepare(named, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").rglob("*.bin")} == before
    (corpus,) = plan(named, folder=tmp_path)["corpora"]
    assert corpus["licenses"] == ["cc-by-4.0"] and not corpus["estimated"]


def test_cleaning_asks_before_it_takes_what_was_begun(recipe, tmp_path) -> None:
    folder = tmp_path / "run"
    (begun,) = interrupt(recipe, folder, 300)
    write_json(folder / "recipe.json", to_plain(recipe))
    assert spare(folder) == []
    (one,) = shards(folder)
    assert one.name == f"shards/{begun.name}" and "resumes" in one.why and one.size > 10_000
    (texts,) = plan(recipe, folder=folder)["corpora"]
    assert texts["there"] == sum(file.stat().st_size for file in begun.glob("*.bin")) and texts["estimated"]
    assert remove(folder, [one]) == one.size and not begun.exists()


def test_streams_stay_at_the_commit_that_they_began_with() -> None:
    stream = HubText(dataset="a/b", license="mit")
    assert at_revision(stream, ["a/b", COMMIT]) == replace(stream, revision=COMMIT)
    curated = Filtered(source=Concatenated(sources=(TextFiles(paths=("x",)), stream)), filters=())
    at = at_revision(curated, [[], ["a/b", COMMIT]])
    assert at.source.sources == (TextFiles(paths=("x",)), replace(stream, revision=COMMIT))
    folder = HubText(dataset="/no/longer/there", license="mit")
    assert at_revision(folder, [["/no/longer/there/train.parquet", 9, 9]]) == folder
    assert at.source.sources[1].identity() == ["a/b", COMMIT], "nobody is asked"


def test_parted_texts_go_on_after_an_interruption_to_the_same_files(recipe, tmp_path) -> None:
    (tmp_path / "texts").mkdir()
    for name in "abcdefgh":
        (tmp_path / "texts" / f"{name}.txt").write_text("\n".join(tiny.sentences(ord(name) + n) for n in range(30)))
    parted = replace(recipe, corpora={"texts": TextFiles(paths=(str(tmp_path / "texts"),))})
    assert "so the last 20% of each is held out" in prepare(parted, tmp_path / "straight")
    assert len(interrupt(parted, tmp_path / "run", 16)) == 1, "each text gives two parts, the end to two files"
    said = prepare(parted, tmp_path / "run")
    assert "documents are encoded already, in" in said
    assert contents(tmp_path / "run" / "shards") == contents(tmp_path / "straight" / "shards")
    assert record(tmp_path / "run")["outputs"] == record(tmp_path / "straight")["outputs"]
    other = replace(parted, split=Split(share=0.3))
    assert "are encoded already" not in prepare(other, tmp_path / "run")
