"""Bad input, typed or read: every mistake gets an answer of three parts, and what was there before stays as it was."""

import bz2
import gzip
import json
import lzma
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from time import sleep

import pyarrow
import pytest
from tiny_commands import Running, contents, lilliput, refused, trained, workshop

pytestmark = pytest.mark.slow

TRAIN = ("train", "mine.py", "--machine", "small.py", "--out", "run")


@pytest.fixture
def shop(tmp_path):
    return workshop(tmp_path)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The weights of a run that nothing was wrong with."""
    folder = workshop(tmp_path_factory.mktemp("straight"))
    lilliput(*TRAIN, folder=folder)
    return trained(folder / "run")


@pytest.mark.parametrize("path", ["nothing.jsonl", "nothing", "nothing/*.jsonl", "empty"])
def test_a_source_that_is_not_there_is_named_before_anything_is_written(shop, path):
    (shop / "empty").mkdir()
    refused(*TRAIN, "--source", f"texts={path}", folder=shop, says=repr(path), where="--source texts")
    assert not (shop / "run").exists()


def test_a_corpus_that_is_not_there_is_named_and_can_come_later(shop, straight):
    (shop / "texts").rename(shop / "elsewhere")
    refused(*TRAIN, folder=shop, says="no file or folder", where="the corpus 'texts'")
    (shop / "elsewhere").rename(shop / "texts")
    lilliput(*TRAIN, folder=shop)
    assert trained(shop / "run") == straight


EMPTY = {
    "no rows": ({"a.jsonl": ""}, "none of the files holds a record"),
    "blank lines": ({"a.jsonl": "\n \n\n"}, "none of the files holds a record"),
    "no file": ({}, "holds no file"),
    "an empty text": ({"a.txt": ""}, "no text"),
    "a blank text": ({"a.txt": "\n\n \n"}, "no text"),
}


@pytest.mark.parametrize("case", EMPTY)
def test_a_corpus_with_nothing_in_it_is_refused(shop, straight, case):
    files, says = EMPTY[case]
    (shop / "texts").rename(shop / "full")
    (shop / "texts").mkdir()
    for name, text in files.items():
        (shop / "texts" / name).write_text(text)
    refused(*TRAIN, folder=shop, says=says, where="texts")
    shutil.rmtree(shop / "texts")
    (shop / "full").rename(shop / "texts")
    lilliput(*TRAIN, folder=shop)
    assert trained(shop / "run") == straight


def test_filters_that_leave_nothing_are_named(shop):
    with open(shop / "mine.py", "a") as file:
        file.write(
            "from lilliput.data.corpora.filters import Filtered, Length\n"
            "few = Filtered(source=corpora['texts'], filters=(Length(at_least=10**6),))\n"
            "recipe = replace(recipe, corpora=corpora | {'texts': few})\n"
        )
    refused(*TRAIN, folder=shop, says="no text", where="texts")


PACK = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pyarrow.Codec("zstd").compress(data, asbytes=True),
}


def packed(file: Path, suffix: str) -> tuple[Path, bytes]:
    """A file of the corpus in compressed form, where the plain one was, and what it holds."""
    whole = PACK[suffix](file.read_bytes())
    file.unlink()
    return file.with_name(file.name + suffix), whole


@pytest.mark.parametrize("suffix", PACK)
def test_a_file_cut_short_is_named_and_nothing_is_trained(shop, straight, suffix):
    file, whole = packed(shop / "texts" / "b.jsonl", suffix)
    file.write_bytes(whole[: len(whole) * 2 // 3])
    error = refused(*TRAIN, folder=shop, says="cannot be read any further", where=f"{file}, record")
    assert "cannot be read any further" in error and not (shop / "run" / "phases").exists()
    file.write_bytes(whole)
    lilliput(*TRAIN, folder=shop)
    assert trained(shop / "run") == straight


@pytest.mark.parametrize("suffix", PACK)
def test_token_files_survive_a_corpus_that_became_damaged(shop, straight, suffix):
    lilliput("data", "mine.py", "--out", "run", folder=shop)
    before = contents(shop / "run")
    plain = shop / "texts" / "b.jsonl"
    text = plain.read_bytes()
    file, whole = packed(plain, suffix)
    file.write_bytes(whole[: len(whole) * 2 // 3])
    for command in (("data", "run"), TRAIN):
        refused(*command, folder=shop, where=str(file))
    kept = contents(shop / "run")
    assert {name: kept[name] for name in before if not name.endswith(("run.json", "environment.json"))} == {
        name: data for name, data in before.items() if not name.endswith(("run.json", "environment.json"))
    }
    file.unlink()
    plain.write_bytes(text)
    lilliput(*TRAIN, folder=shop)
    assert trained(shop / "run") == straight


def test_a_damaged_corpus_of_the_last_phase_is_found_before_the_first(tmp_path):
    shop = workshop(tmp_path, entries=5)
    file, whole = packed(shop / "chats" / "chats.jsonl", ".xz")
    file.write_bytes(whole[: len(whole) // 2])
    refused(*TRAIN, folder=shop, where=str(file))
    assert not (shop / "run" / "phases").exists()
    file.write_bytes(whole)
    lilliput(*TRAIN, folder=shop)
    assert len(trained(shop / "run")) == 2


@pytest.mark.parametrize(
    ("name", "data", "where"),
    [
        ("b.jsonl", b'{"text": "one"}\n{"text": "caf\xe9"}\n', "record 2"),
        ("b.txt", b"one\ntwo\ncaf\xe9\n", "line 3"),
        ("b.jsonl", b'{"text": "one"}\nnot json\n', "record 2"),
        ("b.jsonl", b'{"text": "one"}\n{"txt": "two"}\n', "record 2"),
        ("b.jsonl", b'{"text": "one"}\n{"text": 2}\n', "record 2"),
        ("b.parquet", b"PAR1 and nothing else", "record 1"),
    ],
)
def test_a_record_that_is_no_text_is_named_by_file_and_number(shop, name, data, where):
    file = shop / "texts" / name
    file.write_bytes(data)
    refused(*TRAIN, folder=shop, where=f"{file}, {where}")
    assert not (shop / "run" / "phases").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_of_a_text_is_answered_at_once_and_the_same_command_goes_on(shop, number, code):
    slow = "\u2167" * 2_500_000  # a Roman numeral, which is left to the slower encoder
    (shop / "texts" / "d.jsonl").write_text(json.dumps({"text": slow}) + "\n")
    few = ("--set", "tokenizer.vocab=258")  # without a merge: the text is to be encoded, not learned from
    lilliput("tokenizer", "mine.py", "--out", "run", *few, folder=shop)
    before = (shop / "run" / "recipe.json").read_bytes()
    running = Running("data", "mine.py", "--out", "run", *few, "--set", "split.share=0.2", folder=shop)
    while not (shop / "run" / "parts" / "shards.texts.json").exists():
        assert running.process.is_alive()
        sleep(0.01)
    sleep(0.5)
    running.signal(number)
    ended = running.end(seconds=3)
    assert (ended.code, ended.err) == (code, "") and "the same command resumes it" in ended.out
    assert (shop / "run" / "recipe.json").read_bytes() == before, "the run stays what it was made from"
    lilliput("data", "mine.py", "--out", "run", *few, folder=shop)
    assert (
        json.loads((shop / "run" / "shards" / "texts" / "index.json").read_text())["sides"]["train"]["documents"] > 150
    )


def test_a_file_of_a_stranger_that_would_fill_the_memory_is_refused(shop, straight):
    zeros = pyarrow.Codec("zstd").compress(bytes(2**28), asbytes=True)
    (shop / "texts" / "d.jsonl.zst").write_bytes(zeros)
    err = refused(
        *TRAIN, folder=shop, says="longer than 33,554,432 bytes", where=f"{shop / 'texts' / 'd.jsonl.zst'}, record 1"
    )
    assert "export LILLIPUT_MAX_LINE_BYTES=67108864" in err and len(zeros) < 50_000
    (shop / "texts" / "d.jsonl.zst").unlink()
    lilliput(*TRAIN, folder=shop)
    assert trained(shop / "run") == straight


def test_token_files_of_another_run_are_not_trained_on(shop):
    """Of another tokenizer, or by the same one of other texts: folders that somebody copied into the run."""
    few = ("--set", "tokenizer.vocab=258")  # without a merge, which other texts would change
    lilliput("data", "mine.py", "--out", "run", *few, folder=shop)
    smaller = ("--set", "tokenizer.vocab=290", "--set", "model.vocab=290")
    lilliput("data", "mine.py", "--out", "of-another-tokenizer", *smaller, folder=shop)
    lilliput("data", "mine.py", "--out", "of-other-texts", *few, "--source", "texts=texts/[ab].jsonl", folder=shop)
    tokens = shop / "run" / "shards" / "texts"
    for other, says in (
        ("of-another-tokenizer", "the token ids are of the tokenizer"),
        ("of-other-texts", "not the ones this run made"),
    ):
        shutil.rmtree(tokens)
        shutil.copytree(shop / other / "shards" / "texts", tokens)
        refused("train", "run", "--machine", "small.py", folder=shop, says=says, where="run/shards/texts")
        assert contents(tokens) == contents(shop / other / "shards" / "texts"), "nothing is written over unasked"
    shutil.rmtree(tokens)
    lilliput("train", "run", "--machine", "small.py", folder=shop)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("runn", "mine.py"), "nearest names: run"),
        (("recipe", "cpoy", "quickstart"), "nearest names: copy"),
        (("train", "mine.py", "--machnie", "small.py"), "nearest names: --machine"),
        (("train", "mine.py", "--machine", "cpuu"), "nearest names: cpu"),
        (("train", "quickstrat"), "nearest names: quickstart"),
        (("train", "mine.py", "--set", "modle.width=8"), "nearest names: model"),
        (("train", "mine.py", "--set", "timeline.pretrian.length=8"), "nearest names: pretrain"),
        (("train", "mine.py", "--set", "model.width"), "has no value"),
        (("train", "mine.py", "--set", "model.width=wide"), "'wide' cannot replace"),
        (("train", "mine.py", "--source", "text=texts"), "nearest names: texts"),
        (("sweep", "mine.py", "--over", "timeline.pretrain.optimizer.lrr=1,2"), "nearest names: lr"),
        (("eval", "nowhere", "--suite", "smok"), "nearest names: smoke"),
        (("eval", "nowhere", "--suite", "smoke", "--tasks", "hellaswagg"), "nearest names: hellaswag"),
        (("generate", "nowhere", "--max-new-tokens", "many"), "--max-new-tokens"),
    ],
)
def test_unknown_names_come_with_the_nearest(shop, arguments, says):
    before = contents(shop)
    refused(*arguments, folder=shop, says=says)
    assert contents(shop) == before


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("timeline.pretrain.optimizer.lr=nan", "lr cannot be nan"),
        ("timeline.pretrain.optimizer.lr=inf", "lr cannot be inf"),
        ("timeline.pretrain.optimizer.lr=-1", "lr cannot be -1"),
        ("timeline.pretrain.optimizer.weight_decay=nan", "weight_decay cannot be nan"),
        ("timeline.pretrain.ema.decay=2", "decay cannot be 2"),
        ("timeline.pretrain.schedule.floor=nan", "floor cannot be nan"),
        ("timeline.pretrain.clip=nan", "clip cannot be nan"),
        ("timeline.pretrain.clip=0", "clip cannot be 0"),
        ("timeline.pretrain.tokens=-100000", "less than one step"),
        ("timeline.pretrain.tokens=nan", "'nan' cannot replace"),
        ("timeline.pretrain.length=0", "length cannot be 0"),
        ("timeline.pretrain.batch_tokens=0", "batch_tokens cannot be 0"),
        ("timeline.pretrain.save_every=0", "save_every cannot be 0"),
        ("timeline.pretrain.measure_every=2", "'2' cannot replace"),
        ("timeline.pretrain.data.weights.texts=nan", "not positive"),
        ("model.width=0", "width cannot be 0"),
        ("model.layers=-1", "layers cannot be -1"),
        ("model.mixer.kv_heads=0", "kv_heads cannot be 0"),
        ("model.mixer.kv_heads=3", "evenly"),
        ("model.ffn.inner=0", "inner cannot be 0"),
        ("split.share=nan", "share cannot be nan"),
        ("tokenizer.vocab=3", "too small"),
    ],
)
def test_numbers_out_of_range_are_refused(shop, setting, says):
    refused("train", "mine.py", "--set", setting, folder=shop, says=says)
    assert not (shop / "runs").exists()


def test_other_numbers_out_of_range_are_refused(shop):
    over = ("--over", "timeline.pretrain.clip=1,2")
    refused("sweep", "mine.py", *over, "--seeds", 0, folder=shop, where="--seeds")
    refused("plan", "mine.py", "--price-per-hour", "nan", folder=shop, says="price_per_hour cannot be nan")
    refused("plan", "mine.py", "--watts", -1, folder=shop, says="watts cannot be -1")
    assert not (shop / "runs").exists()


EDITS = {
    "an unknown field": (lambda plain: plain["model"].update(widht=8), "nearest names: width"),
    "a field that is not there": (lambda plain: plain["model"].pop("width"), "'width'"),
    "another kind of value": (lambda plain: plain["model"].update(width="wide"), "do not fit"),
    "a number out of range": (lambda plain: plain["model"].update(layers=0), "layers cannot be 0"),
    "an unknown type": (lambda plain: plain["model"].update(type="lilliput.model:ModelSpek"), "ModelSpek"),
    "no recipe": (lambda plain: plain.update(plain.pop("model")), "there is no field"),
    "another spec": (lambda plain: [plain.clear(), plain.update(type="lilliput.data.split:Split")], "no recipe"),
    "no spec": (lambda plain: plain.pop("type"), "no recipe"),
}


def test_a_recipe_edited_by_hand_is_checked(shop, straight):
    lilliput("tokenizer", "mine.py", "--out", "run", folder=shop)
    file = shop / "run" / "recipe.json"
    good = file.read_text()
    for edit, says in EDITS.values():
        plain = json.loads(good)
        edit(plain)
        file.write_text(json.dumps(plain))
        before = contents(shop / "run")
        refused("train", "run", folder=shop, says=says, where="run/recipe.json")
        assert contents(shop / "run") == before
    file.write_text(good[:-9])
    for command in ("train", "plan", "generate", "clean", "runs"):
        refused(command, "run", folder=shop, where="run")
    file.write_text(good)
    lilliput("train", "run", "--machine", "small.py", folder=shop)
    assert trained(shop / "run") == straight


def test_what_was_refused_leaves_the_run_as_it_was(shop, straight):
    """The recipe that a run folder holds is the one it was made from, not the last one that somebody tried."""
    lilliput(*TRAIN, folder=shop)
    before = contents(shop / "run")
    refused("train", "run", "--set", "timeline.pretrain.clip=7", folder=shop, says="phase.clip was 1.0, not 7.0")
    refused("train", "run", "--machine", "other.py", folder=shop, says="does not exist")
    after = contents(shop / "run")
    assert before == after
    lilliput("train", "run", folder=shop)
    assert trained(shop / "run") == straight


@pytest.mark.parametrize("kind", ["nothing", "empty", "text.txt"])
def test_what_is_no_run_and_no_model_is_refused(shop, kind):
    (shop / "empty").mkdir()
    (shop / "text.txt").write_text("a text\n")
    before = contents(shop)
    for command in ("train", "data", "publish", "plan", "clean", "eval"):
        assert kind in refused(command, kind, folder=shop)
    for command in (("generate", kind), ("chat", kind), ("score", kind, "--choice", "a")):
        refused(*command, folder=shop, where=kind)
    refused("eval", kind, "--suite", "smoke", folder=shop, says=kind)
    assert contents(shop) == before and not list((shop / "empty").iterdir())


def test_a_run_without_releases_says_how_to_get_one(shop):
    lilliput("tokenizer", "mine.py", "--out", "run", folder=shop)
    for command in (("generate", "run"), ("chat", "run"), ("score", "run", "--choice", "a")):
        refused(*command, folder=shop, says="lilliput train run", where="run")
    refused("publish", "run", folder=shop, says="lilliput train run")
    refused("eval", "run", folder=shop, says="lilliput train run")
    refused("clean", "run", "--from", "phases/00-pretrian", folder=shop, says="phases/00-pretrain")


@pytest.mark.parametrize("arguments", [("runs", "."), ("recipe", "show", "slm-10m", "--json")])
def test_a_reader_who_has_enough_is_no_error(arguments):
    """As `| head -1` does; the whole command in a fresh process, to its very end."""
    command = [sys.executable, "-m", "lilliput", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert not process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
