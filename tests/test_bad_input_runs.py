"""Disks, processes and bytes that fail: a run says so, loses nothing, and goes on to the same weights."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_commands import Running, contents, lilliput, refused, trained, workshop

from lilliput.base import hash_cache
from lilliput.base.files import sha256, with_checksum, write_json
from lilliput.base.hash_cache import HashCache
from lilliput.base.run_folder import RunFolder
from lilliput.data.shards import Shards

pytestmark = pytest.mark.slow

WEIGHTS = "releases/tiny-base/model.safetensors"
LONG = ("--set", "timeline.pretrain.tokens=12800", "--set", "timeline.pretrain.save_every=10")
"""A hundred steps: long enough to be met in the middle."""
METRICS = "phases/00-pretrain/metrics.jsonl"
CHECKPOINTS = "phases/00-pretrain/checkpoints"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A workshop with a finished run, `good`, that nothing was wrong with."""
    folder = workshop(tmp_path_factory.mktemp("shop"))
    lilliput("run", "mine.py", "--machine", "small.py", "--out", "good", folder=folder)
    return folder


@pytest.fixture
def run(shop):
    """A copy of the finished run."""
    shutil.rmtree(shop / "run", ignore_errors=True)
    subprocess.run(["cp", "-a", shop / "good", shop / "run"], check=True)
    return shop / "run"


@pytest.fixture(scope="module")
def long(shop):
    """The weights of the long run, trained without a break."""
    lilliput("train", "mine.py", "--machine", "small.py", "--out", "long", *LONG, folder=shop)
    return trained(shop / "long")


def flip(file: Path, offset: int = -9) -> None:
    """Change one bit of a file."""
    data = bytearray(file.read_bytes())
    data[offset] ^= 1
    file.write_bytes(data)


class Disk:
    """A folder on a disk of its own that can be filled up."""

    def __init__(self, folder: Path):
        self.folder, self.limit = folder, {}

    def fill(self, room: int) -> None:
        """Leave room for so many bytes."""
        there = os.statvfs(self.folder)
        (self.folder / "ballast").write_bytes(bytes(there.f_bavail * there.f_frsize - room))

    def free(self) -> None:
        """Make room again."""
        (self.folder / "ballast").unlink()


class Limit(Disk):
    """Where no disk can be mounted: a process may write no longer files than this."""

    def fill(self, room: int) -> None:
        self.limit = {"most": room}

    def free(self) -> None:
        self.limit = {}


@pytest.fixture
def disk(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield Limit(tmp_path)  # only root may mount
        return
    try:
        yield Disk(tmp_path)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_stops_a_run_and_room_lets_it_go_on(shop, disk):
    """At its token files, at a checkpoint, at a release: what is there stays, the same command goes on."""
    run = disk.folder / "run"
    lilliput("tokenizer", shop / "mine.py", "--out", run, folder=shop)
    moments = [
        (("data", run), 30_000, "shards/texts"),
        (("train", run, "--machine", "small.py"), 100_000, "checkpoints/step-000000"),
        (("publish", run), 40_000, WEIGHTS.rpartition("/")[0]),
    ]
    for command, room, where in moments:
        before = contents(run)
        disk.fill(room)
        refused(*command, folder=shop, where=where, **disk.limit)
        after = contents(run)
        for name in before.keys() - {"environment.json", "run.json"}:
            assert after[name] == before[name] or name.startswith("parts/"), name
        disk.free()
        lilliput(*command, folder=shop)
    assert sha256(run / WEIGHTS) == sha256(shop / "good" / WEIGHTS)


@pytest.fixture
def read_only(run):
    """The finished run, with nothing in it that may be written."""
    modes = {path: path.stat().st_mode for path in (run, *run.rglob("*"))}
    for path, mode in modes.items():
        path.chmod(mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    yield run
    for path, mode in modes.items():
        path.chmod(mode)


def test_a_finished_run_can_be_read_where_it_cannot_be_written(shop, read_only):
    before = contents(read_only)
    lilliput("generate", "run", "--prompt", "small", "--max-new-tokens", 4, folder=shop)
    lilliput("score", "run", "--context", "small", "--choice", "models", folder=shop)
    assert "published" in lilliput("runs", "run", folder=shop).out
    assert "bits_per_byte" in lilliput("eval", "run", folder=shop).out
    rows = json.loads(lilliput("eval", "run", "--json", folder=shop).out)
    assert rows[0]["scores"] == json.loads((read_only / "evals" / "tiny-base.json").read_text())["scores"]
    lilliput("eval", "run", "--text", "texts/a.jsonl", "--limit", 3, folder=shop)
    lilliput("plan", "run", folder=shop)
    assert contents(read_only) == before


def test_what_must_write_says_so_in_a_read_only_folder(shop, read_only):
    before = contents(read_only)
    for command in (("train", "run"), ("publish", "run"), ("clean", "run", "--yes")):
        refused(*command, folder=shop, says="cannot be written", where="run")
    refused("train", "mine.py", "--out", "run/inside", folder=shop, says="cannot be written", where="run/inside")
    refused("recipe", "copy", "quickstart", "run/quickstart.py", folder=shop, where="run/quickstart.py")
    assert contents(read_only) == before


def test_texts_need_not_be_writable(shop):
    texts = shop / "texts"
    for path in (*texts.iterdir(), texts):
        path.chmod(0o555 if path.is_dir() else 0o444)
    lilliput("data", "mine.py", "--out", "read", folder=shop)
    assert contents(shop / "read" / "shards" / "texts") == contents(shop / "good" / "shards" / "texts")
    texts.chmod(0o755)


def test_a_text_that_may_not_be_read_is_named(shop, tmp_path):
    file = tmp_path / "secret.jsonl"
    file.write_text('{"text": "nobody may see this"}')
    file.chmod(0)
    refused("data", "mine.py", "--out", "dark", "--source", f"texts={file}", folder=shop, where=str(file))


def test_one_process_at_a_time_works_on_a_run(shop, long):
    first = Running("train", "mine.py", "--machine", "small.py", "--out", "two", *LONG, folder=shop)
    first.wait_for(shop / "two" / METRICS, 30)
    first.signal(signal.SIGSTOP)  # however slow the others are, they meet it in the middle
    try:
        for command in (
            ("train", "two"),
            ("train", "mine.py", "--out", "two", "--set", "seed=3"),
            ("clean", "two", "--yes"),
            ("clean", "two", "--from", "phases/00-pretrain", "--yes"),
            ("eval", "two"),
        ):
            refused(*command, folder=shop, says="another process is working on this run", where="two")
        assert "pretrain: step" in lilliput("runs", "two", folder=shop).out
    finally:
        first.signal(signal.SIGCONT)
    assert first.end().code == 0 and trained(shop / "two") == long


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_training_after_the_step_and_the_same_command_goes_on(shop, long, number, code):
    command = ("train", "mine.py", "--machine", "small.py", "--out", number.name, *LONG)
    running = Running(*command, folder=shop)
    running.wait_for(shop / number.name / METRICS, 30)
    running.signal(number)
    ended = running.end(seconds=10)
    assert ended.code == code and not ended.err
    assert "the same command resumes it" in ended.out and not trained(shop / number.name)
    seen = json.loads((shop / number.name / METRICS).read_text().splitlines()[-1])["step"]
    assert 30 <= seen < 100 and f"step {seen} of 100 is saved" in ended.out
    assert (shop / number.name / CHECKPOINTS / f"step-{seen:06d}").is_dir(), "nothing is done twice"
    lilliput(*command, folder=shop)
    assert trained(shop / number.name) == long


KILLED = """
import os, sys
from pathlib import Path
from lilliput.base.run_folder import RunFolder

def make(folder):
    folder.mkdir()
    (folder / "tokenizer.json").write_text("new")
    os._exit(9)

with RunFolder(Path(sys.argv[1])) as run:
    run.cached("tokenizer", {"n": 2}, make)
"""


def test_what_a_part_replaces_outlives_a_kill_and_a_failure(tmp_path):
    """A kill while a part is made again, then a corpus that is damaged: the old one is still there, record and all."""

    def make(folder: Path) -> str:
        folder.mkdir()
        (folder / "tokenizer.json").write_text("old")
        return "old"

    def fail(folder: Path) -> None:
        raise KeyboardInterrupt

    with RunFolder(tmp_path) as opened:
        opened.cached("tokenizer", {"n": 1}, make)
    before = contents(tmp_path)
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False).returncode == 9
    with RunFolder(tmp_path) as opened:
        with pytest.raises(KeyboardInterrupt):
            opened.cached("tokenizer", {"n": 2}, fail)
        assert contents(tmp_path) == before and opened.outputs("tokenizer", {"n": 1}) == "old"
        (tmp_path / "tokenizer" / "tokenizer.json").unlink()
        assert opened.cached("tokenizer", {"n": 3}, lambda folder: "new") == "new"
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {".lock", "run.json", "tokenizer.json"}


def unfinished(run: Path) -> None:
    """As after an interruption: the last weights are not there yet."""
    shutil.rmtree(run / "phases" / "00-pretrain" / "final")


@pytest.mark.parametrize("name", ["weights.safetensors", "average.safetensors", "optimizer.safetensors"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(shop, run, name):
    unfinished(run)
    flip(run / CHECKPOINTS / "step-000012" / name)
    said = lilliput("train", "run", folder=shop).out
    assert "a damaged checkpoint" in said and f"step-000012/{name}" in said
    assert trained(run) == trained(shop / "good")


@pytest.mark.parametrize("place", [20, 60, 140, -9])
def test_a_damaged_manifest_is_named_and_the_checkpoint_before_it_used(shop, run, place):
    unfinished(run)
    flip(run / CHECKPOINTS / "step-000012" / "manifest.json", place)
    said = lilliput("train", "run", folder=shop).out
    assert "a damaged checkpoint" in said and "step-000012" in said
    assert trained(run) == trained(shop / "good")


def test_without_a_whole_checkpoint_nothing_is_trained(shop, run):
    unfinished(run)
    for name in ("step-000008", "step-000012"):
        flip(run / CHECKPOINTS / name / "weights.safetensors")
    before = contents(run / CHECKPOINTS)
    error = refused("train", "run", folder=shop, says="all 2 checkpoints are damaged", where=CHECKPOINTS)
    assert "remove that folder" in error and contents(run / CHECKPOINTS) == before
    shutil.rmtree(run / CHECKPOINTS)
    lilliput("train", "run", folder=shop)
    assert trained(run) == trained(shop / "good")


@pytest.mark.parametrize("name", ["phases/00-pretrain/final/weights.safetensors", "tokenizer/tokenizer.json"])
def test_what_a_run_can_make_again_it_makes_again(shop, run, name):
    flip(run / name, 400)
    lilliput("train", "run", folder=shop)
    assert (run / name).read_bytes() == (shop / "good" / name).read_bytes()


def records(run: Path) -> list[str]:
    return sorted(str(path.relative_to(run)) for path in (*run.glob("parts/*.json"), run / "run.json"))


def test_a_changed_byte_of_a_record_or_a_token_file_is_named(shop, run):
    """Every record and every token file; put back, the run is as good as before."""
    names = [*records(run), *(f"shards/texts/{path.name}" for path in (run / "shards" / "texts").iterdir())]
    assert len(names) > 9
    for name in names:
        good = (run / name).read_bytes()
        flip(run / name, len(good) // 2)
        error = refused("run", "run", folder=shop, where=name.removesuffix(".json"))
        assert "damaged" in error or "differs" in error or "cannot be read" in error
        (run / name).write_bytes(good)
    # Of the last process, of when files were changed, and what shows both.
    noted = ("environment.json", "verified.json", "report.html")
    before = {name: data for name, data in contents(run).items() if name not in noted}
    lilliput("run", "run", folder=shop)
    assert {name: data for name, data in contents(run).items() if name not in noted} == before
    shutil.rmtree(run / "releases")
    flip(run / "parts" / "phases.00-pretrain.json", 100)
    assert "is damaged" in lilliput("runs", "run", folder=shop).out


def test_a_disk_that_loses_bits_is_found_out(shop, run, monkeypatch):
    """Times of change do not tell. Training stops at the block, `--verify` names the file; no damaged record counts."""
    monkeypatch.setattr(hash_cache, "RECENT", -60.0)
    name = "shards/texts/train-00000.bin"
    remembered = HashCache(run)
    Shards(run / "shards" / "texts", verified=remembered)

    def note(**changes):
        files = remembered.plain()
        write_json(run / "verified.json", with_checksum({"files": files | {name: files[name] | changes}}))
        return (run / "verified.json").read_bytes()

    before = note()
    lilliput("data", "run", folder=shop)
    assert (run / "verified.json").read_bytes() == before, "nothing was hashed"
    assert "as they were written" in lilliput("data", "run", "--verify", folder=shop).out
    flip(run / name)
    about = (run / name).stat()
    note(stamp=[about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino])
    lilliput("clean", "run", "--from", "phases/00-pretrain", "--yes", folder=shop)
    lilliput("data", "run", folder=shop)
    refused("train", "run", folder=shop, says="train-00000.bin has changed since it was verified", where=name)
    record = (run / "verified.json").read_bytes()
    for command in (("data", "run", "--verify"), ("data", "run")):
        refused(*command, folder=shop, says="train-00000.bin differs from the index", where=name)
    (run / "verified.json").write_bytes(record)
    flip(run / "verified.json", 60)
    ended = lilliput("data", "run", folder=shop, expected=1)
    assert "verified.json: the file is damaged" in ended.out and "train-00000.bin differs" in ended.err


def test_a_changed_byte_of_a_release_is_refused_by_name(shop, run):
    """By those who read it, whichever file it is, and mended by those who made it."""
    release = run / "releases" / "tiny-base"
    names = [path.name for path in release.iterdir() if path.name not in ("README.md", "loss.png", "record.json")]
    assert {"model.safetensors", "tokenizer.json", "config.json", "lilliput.json"} <= set(names)
    for name in names:
        good = (release / name).read_bytes()
        flip(release / name, len(good) // 2)
        refused("generate", "run", folder=shop, where=str(Path("run/releases/tiny-base")), says=name)
        (release / name).write_bytes(good)
    flip(release / "record.json", 400)
    refused("publish", "run/releases/tiny-base", "--verify", folder=shop, where="record.json")
    flip(release / "config.json", 40)
    lilliput("publish", "run", folder=shop)
    lilliput("publish", "run/releases/tiny-base", "--verify", folder=shop)
    lilliput("generate", "run", folder=shop)
    for name in names:
        assert (release / name).read_bytes() == (shop / "good/releases/tiny-base" / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("generate", "--temperature", -1), "temperature cannot be -1"),
        (("generate", "--temperature", "nan"), "temperature cannot be nan"),
        (("generate", "--temperature", "inf"), "temperature cannot be inf"),
        (("generate", "--top-p", 2), "top_p cannot be 2"),
        (("generate", "--top-k", -1), "top_k cannot be -1"),
        (("generate", "--repetition-penalty", 0), "repetition_penalty cannot be 0"),
        (("generate", "--max-new-tokens", -3), "max_new_tokens cannot be -3"),
        (("generate", "--device", "gpu"), "no device 'gpu'"),
        (("score", "--choice", ""), "a choice is empty"),
        (("eval", "--suite", "quickstart", "--limit", 0), "the limit is 0"),
        (("eval", "--suite", "quickstart", "--batch-size", 0), "batches of 0 rows"),
        (("eval", "--suite", "quickstart", "--dtype", "float8"), "float8 weights"),
        (("eval", "--text", "nothing.txt"), "nothing.txt is not a file"),
        (("eval", "--suite", "smoke", "--eval-data", "nothing"), "nothing is not a folder"),
    ],
)
def test_numbers_out_of_range_are_refused(shop, arguments, says):
    command, *options = arguments
    refused(command, "good", *options, folder=shop, says=says)
