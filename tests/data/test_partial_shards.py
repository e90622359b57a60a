"""Encoding that is interrupted: killed, failed, damaged meanwhile; the same call ends in the same bytes."""

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import pyarrow
import pyarrow.parquet
import pytest
from tiny_corpora import corpus_hash
from tokenizers import Tokenizer

from lilliput.base.errors import DataError
from lilliput.base.files import read_json
from lilliput.data import encoding_processes, encoding_queue
from lilliput.data.corpora.arithmetic import Arithmetic
from lilliput.data.corpora.concatenated import Concatenated
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Exact, Filtered, Length
from lilliput.data.corpora.hub import HubText
from lilliput.data.documents import Document
from lilliput.data.dropped import read_samples
from lilliput.data.partial_shards import PROGRESS, partial_folders
from lilliput.data.resumable import is_seekable, iterate_from
from lilliput.data.shards import Encoded, Shards, write_shards
from lilliput.data.split import Split
from lilliput.data.tokenization_progress import TokenizationProgress
from lilliput.tokenizer.bpe import BPE, save_tokenizer

WORDS = "small models learn little by little from plain text that somebody wrote with care about many things".split()
SPLIT = Split(share=0.2)
COUNT = 3_000
SHARD = 15_000
"""Tokens of a shard: the training side of the texts has ten and a half."""


def sentences(number: int) -> str:
    """Words that differ from document to document, and repeat enough to be learned."""
    rng = random.Random(number)
    return " ".join(rng.choices(WORDS, k=40)) + f". Number {number}, été."


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@dataclass(frozen=True, kw_only=True)
class Unmarked:
    """A corpus of somebody else's: it can be read from its beginning, and that is all."""

    source: TextFiles
    changed: ClassVar[bool] = False

    def identity(self):
        return self.source.identity()

    def documents(self):
        for document in self.source.documents():
            text = document.text + "!" if self.changed and document.id == "3" else document.text
            yield Document(text, document.id, document.group)


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """Documents in files of every kind, and the same again as a dataset of the hub."""
    folder = tmp_path_factory.mktemp("texts")
    rows = [{"id": str(n), "text": sentences(n % 2_500), "group": f"g{n // 2}"} for n in range(COUNT)]
    rows[7]["text"] = rows[2_200]["text"] = "short"
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "a.jsonl").write_text("".join(lines[:1_200]) + "\n")
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("".join(lines[1_200:2_000]).encode()))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[2_000:]), folder / "c.parquet", row_group_size=300)
    for name in ("d", "e"):
        (folder / f"{name}.txt").write_text(f"The file {name}.")
    (folder.parent / "hub").mkdir(exist_ok=True)
    for index in range(3):
        table = pyarrow.Table.from_pylist(rows[index * 700 : (index + 1) * 700])
        pyarrow.parquet.write_table(table, folder.parent / "hub" / f"train-{index}.parquet", row_group_size=300)
    return folder


@pytest.fixture(scope="module")
def tokenizer(texts) -> Tokenizer:
    made = BPE(vocab=320).train(sentences(n) for n in range(200))
    save_tokenizer(made, texts.parent / "tokenizer", BPE(vocab=320).specials)
    return made


@pytest.fixture(scope="module")
def straight(texts, tokenizer, tmp_path_factory):
    """Each corpus encoded without a break, once: what came of it, and its files."""
    folder = tmp_path_factory.mktemp("straight")

    @cache
    def made(kind: str) -> tuple[Encoded, dict[str, bytes]]:
        return write(CORPORA[kind](texts), tokenizer, folder / kind), contents(folder / kind)

    return made


CORPORA = {
    "files": lambda folder: TextFiles(paths=(str(folder),), group=None),
    "filters that remember nothing": lambda folder: Filtered(
        source=TextFiles(paths=(str(folder),)), filters=(Length(at_least=10),)
    ),
    "filters that remember": lambda folder: Filtered(
        source=TextFiles(paths=(str(folder),)), filters=(Length(at_least=10), Exact())
    ),
    "a stream": lambda folder: HubText(
        dataset=str(folder.parent / "hub"), license="cc0-1.0", group="group", bytes=450_000
    ),
    "joined": lambda folder: Concatenated(
        sources=(TextFiles(paths=(str(folder / "a.jsonl"),)), TextFiles(paths=(str(folder / "c.parquet"),)))
    ),
    "generated": lambda folder: Arithmetic(count=1_500),
    "no marks": lambda folder: Unmarked(source=TextFiles(paths=(str(folder),))),
}


def write(
    corpus, tokenizer: Tokenizer, folder: Path, told=lambda encoding: None, inputs="these", processes=1
) -> Encoded:
    how = {"shard_tokens": SHARD, "progress": told, "inputs": inputs, "processes": processes}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(encoding_queue, "FEW", 20_000)
        patched.setattr(encoding_processes, "FRAME", 5_000)
        return write_shards(corpus, tokenizer, SPLIT, folder, **how)


class Moments(list):
    """What was told of the encoding, which is interrupted at a document."""

    def __init__(self, stop: float = float("inf")):
        self.stop = stop

    def __call__(self, encoding: TokenizationProgress) -> None:
        self.append(encoding)
        if encoding.documents >= self.stop:
            raise KeyboardInterrupt


def interrupted(corpus, tokenizer: Tokenizer, folder: Path, stop: int, processes: int = 1) -> Path:
    """Begin, and stop once so many documents are written; the folder of what is kept."""
    with pytest.raises(KeyboardInterrupt):
        write(corpus, tokenizer, folder, Moments(stop), processes=processes)
    (begun,) = partial_folders(folder.parent)
    return begun


@pytest.mark.parametrize("kind", CORPORA)
@pytest.mark.parametrize(("before", "after"), [(1, 1), (3, 2)])
def test_every_corpus_resumes_to_the_same_bytes(kind, before, after, texts, tokenizer, straight, tmp_path) -> None:
    """In so many processes before and after, where one wrote what there is to compare with."""
    corpus, (made, files) = CORPORA[kind](texts), straight(kind)
    assert len([file for file in made.index["files"] if file.get("side") == "train"]) > 3
    begun = interrupted(corpus, tokenizer, tmp_path / "broken", 1_000, before)
    kept = read_json(begun / PROGRESS)["kept"]["items"]
    assert 500 < kept < 1_024 and not (tmp_path / "broken").exists()
    going_on = Moments()
    assert write(corpus, tokenizer, tmp_path / "broken", going_on, processes=after) == made
    assert contents(tmp_path / "broken") == files and not begun.exists()
    total, dropped = going_on[-1].documents, sum(made.dropped.values())
    assert going_on[0].kept == kept and going_on[0].shards > 1 and not going_on[0].damaged
    assert total - kept - dropped <= going_on[-1].encoded <= total - kept, "nothing is encoded twice"
    rereads = kind in ("no marks", "filters that remember")
    assert going_on[0].documents == (0 if rereads else kept)
    if kind.startswith("filters"):
        counts = Counter(item for item, _ in iterate_from(corpus) if isinstance(item, str))
        assert made.dropped == dict(counts) and counts["length: too short"] == 2
        assert (counts["exact: duplicate"] > 400) == rereads
        samples = read_samples(tmp_path / "broken")
        numbers = [one.number for one in samples if one.reason == "exact: duplicate"]
        assert numbers == [2**power for power in range(counts["exact: duplicate"].bit_length())]
    assert made.text == corpus_hash(corpus.documents())
    heldout = [document for document in corpus.documents() if SPLIT.is_heldout(document.group)]
    written = list(Shards(tmp_path / "broken").heldout_texts())
    assert written == [(document.id, document.text) for document in heldout]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in CORPORA if kind not in ("no marks", "filters that remember")])
def test_reading_goes_on_from_every_mark(kind, texts) -> None:
    """At the ends of files and of row groups, after the last document, and as JSON."""
    corpus = CORPORA[kind](texts)
    assert is_seekable(corpus)
    items = list(iterate_from(corpus))
    for index in {0, 1, *range(299, len(items), 100), len(items) - 1}:
        mark = json.loads(json.dumps(items[index][1]))
        for version in (mark, mark | {"datasets": "another"}) if kind == "a stream" else (mark,):
            after = list(iterate_from(corpus, version))
            assert [item for item, _ in after] == [item for item, _ in items[index + 1 :]], index


def test_what_was_read_is_not_read_again_where_that_can_be_helped(texts, tokenizer, tmp_path) -> None:
    """Files before the mark may even be unreadable by now; so may the rows before it in a stream's first file."""
    folder = Path(shutil.copytree(texts, tmp_path / "texts"))
    corpus = TextFiles(paths=(str(folder),))
    whole = write(corpus, tokenizer, tmp_path / "straight")
    interrupted(corpus, tokenizer, tmp_path / "broken", 2_000)
    (folder / "a.jsonl").write_text("damaged")
    assert write(corpus, tokenizer, tmp_path / "broken") == whole
    dataset = shutil.copytree(texts.parent / "hub", tmp_path / "hub")
    stream = HubText(dataset=str(dataset), license="cc0-1.0", group="group")
    whole = write(stream, tokenizer, tmp_path / "straight")
    interrupted(stream, tokenizer, tmp_path / "broken", 1_500)
    data = bytearray((dataset / "train-0.parquet").read_bytes())
    data[100:20_000] = bytes(19_900)
    (dataset / "train-0.parquet").write_bytes(data)
    assert write(stream, tokenizer, tmp_path / "broken") == whole
    assert contents(tmp_path / "broken") == contents(tmp_path / "straight")


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from data.test_partial_shards import CORPORA, write
from lilliput.base import append_file
from lilliput.data import partial_shards
from lilliput.tokenizer.bpe import load_tokenizer

kind, where, folder = sys.argv[2], sys.argv[3], Path(sys.argv[4])
left = int(sys.argv[5])

def counting(real):
    def call(*arguments):
        global left
        made = real(*arguments)
        left -= 1
        if left == 0:
            if where == "middle":
                arguments[0]._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return made
    return call

if where == "boundary":
    partial_shards.write_json = counting(partial_shards.write_json)
else:
    append_file.AppendFile.write = counting(append_file.AppendFile.write)
texts = Path(sys.argv[6])
write(CORPORA[kind](texts), load_tokenizer(texts.parent / "tokenizer"), folder, processes=int(sys.argv[7]))
"""


@pytest.mark.parametrize(("kind", "processes"), [("files", 1), ("files", 2), ("filters that remember", 1)])
def test_sigkill_at_a_boundary_and_in_the_middle_costs_no_closed_shard(
    kind, processes, texts, tokenizer, straight, tmp_path
) -> None:
    """Four times in a row: after a record, in a shard before any, in a later one, and after two more records."""
    here, folder = str(Path(__file__).parents[1]), tmp_path / "killed"
    kept = 0
    for where, count in (("middle", 600), ("boundary", 1), ("middle", 1_000), ("boundary", 2)):
        command = [sys.executable, "-c", KILLED, here, kind, where, str(folder), str(count), str(texts)]
        command += [str(processes)]
        ended = subprocess.run(command, capture_output=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}, check=False)
        assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
        (begun,) = partial_folders(tmp_path)
        there = read_json(begun / PROGRESS)["kept"]["items"] if (begun / PROGRESS).exists() else 0
        assert (there > kept) == (where == "boundary") or count == 1_000
        kept = there
    going_on = Moments()
    assert (write(CORPORA[kind](texts), tokenizer, folder, going_on), contents(folder)) == straight(kind)
    assert going_on[0].kept == kept > 1_000


@pytest.mark.parametrize("kind", ["files", "no marks"])
@pytest.mark.parametrize("name", ["train-00001.bin", "heldout-00000.bin", "heldout.txt.jsonl", "gone"])
def test_a_flipped_byte_in_a_kept_file_is_named_and_that_file_made_again(
    kind, name, texts, tokenizer, straight, tmp_path
) -> None:
    corpus = CORPORA[kind](texts)
    begun = interrupted(corpus, tokenizer, tmp_path / "broken", 2_000)
    record = read_json(begun / PROGRESS)
    (entry,) = [
        entry
        for writer in record["writers"].values()
        for entry in writer
        if entry["name"] == (name if name != "gone" else "train-00002.bin")
    ]
    file = begun / entry["name"]
    data = bytearray(file.read_bytes())
    data[entry["length"] // 2] ^= 1
    file.write_bytes(data) if name != "gone" else file.unlink()
    going_on = Moments()
    made = write(corpus, tokenizer, tmp_path / "broken", going_on)
    assert (made, contents(tmp_path / "broken")) == straight(kind)
    assert going_on[0].damaged == (entry["name"],)
    again = 0 if name.endswith("jsonl") else entry["documents"]
    assert going_on[-1].encoded == COUNT + 2 - record["kept"]["items"] + again, "that file, and no other"
    assert going_on[0].documents == (entry["begins"]["items"] if kind == "files" else 0)


def test_a_damaged_record_counts_for_nothing(texts, tokenizer, straight, tmp_path) -> None:
    corpus = CORPORA["files"](texts)
    begun = interrupted(corpus, tokenizer, tmp_path / "broken", 2_000)
    data = bytearray((begun / PROGRESS).read_bytes())
    data[len(data) // 2] ^= 1
    (begun / PROGRESS).write_bytes(data)
    going_on = Moments()
    made = write(corpus, tokenizer, tmp_path / "broken", going_on)
    assert (made, contents(tmp_path / "broken")) == straight("files")
    assert (going_on[0].kept, going_on[0].damaged) == (0, (PROGRESS,))


def test_other_inputs_take_nothing_up_and_leave_it_there_until_they_are_whole(texts, tokenizer, tmp_path) -> None:
    corpus, folder = CORPORA["files"](texts), tmp_path / "broken"
    begun = interrupted(corpus, tokenizer, folder, 2_000)
    before = contents(begun)
    other = BPE(vocab=300).train(sentences(n) for n in range(50))
    for changed in (
        lambda told: write(corpus, tokenizer, folder, told, inputs="those"),
        lambda told: write(corpus, other, folder, told),
        lambda told: write_shards(corpus, tokenizer, Split(share=0.3), folder, SHARD, told, inputs="these"),
        lambda told: write_shards(corpus, tokenizer, SPLIT, folder, SHARD + 1, told, inputs="these"),
        lambda told: write_shards(corpus, tokenizer, SPLIT, folder, SHARD, told),
    ):
        moments = Moments(500)
        with pytest.raises(KeyboardInterrupt):
            changed(moments)
        assert moments[0].kept == moments[0].documents == 0 and contents(begun) == before
    write(corpus, tokenizer, folder, inputs="those")
    assert partial_folders(tmp_path) == [], "then it would never be asked for again"


def test_a_corpus_that_is_not_what_it_was_is_refused(texts, tokenizer, tmp_path, monkeypatch) -> None:
    """Where it has to be read again, which is where that can be seen."""
    corpus = CORPORA["no marks"](texts)
    begun = interrupted(corpus, tokenizer, tmp_path / "broken", 2_000)
    before = contents(begun)
    monkeypatch.setattr(Unmarked, "changed", True)
    with pytest.raises(DataError, match="does not return the same documents as before") as raised:
        write(corpus, tokenizer, tmp_path / "broken")
    assert str(begun) in raised.value.where and contents(begun) == before


def test_a_failure_keeps_what_is_closed_and_cuts_off_the_rest(texts, tokenizer, tmp_path) -> None:
    """A damaged text ends encoding where it lies; mended, it goes on from the last shard before."""
    folder = Path(shutil.copytree(texts, tmp_path / "texts"))
    corpus = TextFiles(paths=(str(folder),))
    whole = write(corpus, tokenizer, tmp_path / "straight")
    good = (folder / "b.jsonl.gz").read_bytes()
    (folder / "b.jsonl.gz").write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match=r"b\.jsonl\.gz"):
        write(corpus, tokenizer, tmp_path / "broken")
    (begun,) = partial_folders(tmp_path)
    record = read_json(begun / PROGRESS)
    lengths = {entry["name"]: entry["length"] for writer in record["writers"].values() for entry in writer}
    assert {path.name: path.stat().st_size for path in begun.iterdir() if path.name != PROGRESS} == lengths
    (folder / "b.jsonl.gz").write_bytes(good)
    assert write(corpus, tokenizer, tmp_path / "broken") == whole


def test_time_is_told_where_the_size_is_known(texts, tokenizer, tmp_path) -> None:
    for kind, known in (("files", True), ("a stream", True), ("generated", True), ("no marks", False)):
        moments = Moments()
        write(CORPORA[kind](texts), tokenizer, tmp_path / kind.replace(" ", "-"), moments)
        shares = [moment.share for moment in moments[1:]]
        assert all((share is not None) == known for share in shares)
        assert all((moment.left is not None) == known for moment in moments[1:])
        assert moments[1].speed > 0
        if known:
            assert shares == sorted(shares) and shares[-1] == pytest.approx(1, abs=2e-3) and moments[-1].left < 0.1


def test_without_inputs_nothing_stays(texts, tokenizer, tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(CORPORA["files"](texts), tokenizer, tmp_path / "broken", Moments(2_000), inputs=None)
    assert list(tmp_path.iterdir()) == []
