"""How fast does a corpus become token files, by the number of processes, and does memory stay flat?

    python benchmarks/tokenization.py FILE... [--processes 1 2] [--turns 3] [--vocab 16384] [--most 60] [--minutes 0]
        [--work FOLDER] [--out FILE.json]

A tokenizer with our own rules learns from the first file. The first megabytes of each file are written to plain JSON
Lines, and `write_shards` makes token files of them: by so many processes from the first document on, of the plain text
and of the files as they are, and in one process with `tokenizers` alone. All of them take turns, the best counts; with
them `encode_batch_fast` encodes the same texts, which are in memory already. The script fails if token files differ.
Then one thread reads rows of what was written as training does. With `--minutes`, a stream without end is encoded for
so long by the most processes, and memory is measured.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.data import encoding_queue
from lilliput.data.batch import Cursor
from lilliput.data.corpora.files import TextFiles
from lilliput.data.documents import Document
from lilliput.data.mixture import Mixture
from lilliput.data.shards import Shards, write_shards
from lilliput.data.split import Split
from lilliput.data.tokenization_progress import TokenizationProgress
from lilliput.tokenizer import fast_bpe
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.specials import literal

ROWS, LENGTH = 32, 1_024
READ = 20_000_000
BATCH = 1_024


@dataclass(frozen=True, kw_only=True)
class Endless:
    """The documents of files, again and again, each time with other ids."""

    source: TextFiles

    def identity(self) -> Any:
        return self.source.identity()

    def documents(self) -> Iterator[Document]:
        number = 0
        while True:
            for document in self.source.documents():
                name, number = f"{number}", number + 1
                yield Document(document.text, name, name)


def plain_copy(files: list[Path], most: float, folder: Path) -> Path:
    """The texts of files, up to so many MB of each, in one plain file."""
    path = folder / "plain.jsonl"
    with open(path, "w", encoding="utf-8") as target:
        for file in files:
            size = 0
            for document in TextFiles(paths=(str(file),)).documents():
                row = {"id": document.id, "text": document.text}
                target.write(json.dumps(row, ensure_ascii=False) + "\n")
                size += len(document.text.encode())
                if size >= most * 1e6:
                    break
    return path


def timed(call: Callable[[], float]) -> dict[str, Any]:
    """What a call, which returns bytes of text, took: seconds, and those of processors, here and in other processes."""
    began, before = time.perf_counter(), os.times()
    megabytes = call() / 1e6
    seconds, after = time.perf_counter() - began, os.times()
    return {
        "megabytes": megabytes,
        "seconds": seconds,
        "own_processor_seconds": after.user + after.system - before.user - before.system,
        "their_processor_seconds": after.children_user
        + after.children_system
        - before.children_user
        - before.children_system,
    }


def encoded(paths: tuple[str, ...], tokenizer: Tokenizer, folder: Path, processes: int) -> dict[str, Any]:
    """What making token files took, from the first document on in so many processes, and their hash."""
    encoding_queue.FEW = 0
    index: dict[str, Any] = {}

    def write() -> float:
        index.update(write_shards(TextFiles(paths=paths), tokenizer, Split(), folder, processes=processes).index)
        return sum(side["bytes"] for side in index["sides"].values())

    return timed(write) | {"sha256": index["sha256"]}


def without_tokie(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a call returns where `tokenizers` encode everything."""
    had, fast_bpe.tokie = fast_bpe.tokie, None
    try:
        return call()
    finally:
        fast_bpe.tokie = had


def in_memory(path: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """What `encode_batch_fast` alone took, with all cores."""
    texts = [document.text for document in TextFiles(paths=(str(path),)).documents()]
    alone = literal(tokenizer)

    def encode() -> float:
        for first in range(0, len(texts), BATCH):
            alone.encode_batch_fast(texts[first : first + BATCH], add_special_tokens=False)
        return sum(len(text.encode()) for text in texts)

    return timed(encode)


def report(name: str, found: dict[str, Any]) -> str:
    """What a way took, in a line."""
    processors = found["own_processor_seconds"] + found["their_processor_seconds"]
    size = found["megabytes"]
    return f"{name}: {size / found['seconds']:.1f} MB/s, {size / processors:.1f} MB per second of a processor"


def memory_of(minutes: float, path: Path, tokenizer: Tokenizer, folder: Path, processes: int) -> list[dict[str, Any]]:
    """MiB of this process and of all others together, every ten seconds, and GB of text encoded by then."""
    seen: list[dict[str, Any]] = []
    size, began = 0.0, time.perf_counter()

    def told(encoding: TokenizationProgress) -> None:
        nonlocal size
        size = (encoding.speed or 0) * (time.perf_counter() - began) / 1e9
        if time.perf_counter() - began > minutes * 60:
            raise KeyboardInterrupt

    def look() -> None:
        while not is_over.wait(10):
            children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
            seen.append({"gigabytes": size, "own": resident("self"), "theirs": sum(map(resident, children))})
            print({name: round(value, 2) for name, value in seen[-1].items()}, flush=True)

    is_over = threading.Event()
    threading.Thread(target=look, daemon=True).start()
    try:
        write_shards(
            Endless(source=TextFiles(paths=(str(path),))),
            tokenizer,
            Split(),
            folder,
            progress=told,
            processes=processes,
        )
    except KeyboardInterrupt:
        is_over.set()
    return seen


def resident(process: str) -> float:
    """MiB of memory that a process has, the files it maps aside."""
    (line,) = (line for line in Path(f"/proc/{process}/status").read_text().splitlines() if "RssAnon" in line)
    return int(line.split()[1]) / 1024


def loading(folder: Path) -> float:
    """Tokens a second that one thread reads through a mixture."""
    torch.set_num_threads(1)
    reader, cursor, done = Mixture(weights={"a": 1.0}).open({"a": Shards(folder)}), Cursor(), 0
    began = time.perf_counter()
    while done < READ:
        _, cursor = reader.read(cursor, ROWS, LENGTH)
        done += ROWS * LENGTH
    return done / (time.perf_counter() - began)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("files", nargs="+", type=Path)
    options.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    options.add_argument("--turns", type=int, default=3)
    options.add_argument("--vocab", type=int, default=16_384)
    options.add_argument("--most", type=float, default=60, metavar="MB")
    options.add_argument("--minutes", type=float, default=0)
    options.add_argument("--work", type=Path)
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    documents = TextFiles(paths=(str(given.files[0]),)).documents()
    tokenizer = BPE(vocab=given.vocab).train(document.text for document in documents)
    if fast_bpe.tokie is None:
        sys.exit("tokie is not installed")
    with tempfile.TemporaryDirectory(dir=given.work) as temporary:
        folder = Path(temporary)
        path = plain_copy(given.files, given.most, folder)
        plain, files = (str(path),), tuple(map(str, given.files))
        ways: dict[str, Callable[[], dict[str, Any]]] = {
            f"plain text, {count} processes": lambda count=count: encoded(plain, tokenizer, folder / "made", count)
            for count in given.processes
        }
        ways["plain text, 1 process, tokenizers alone"] = lambda: without_tokie(
            lambda: encoded(plain, tokenizer, folder / "made", 1)
        )
        ways["encode_batch_fast alone, texts in memory"] = lambda: in_memory(path, tokenizer)
        ways |= {
            f"files as they are, {count} processes": lambda count=count: encoded(
                files, tokenizer, folder / "compressed", count
            )
            for count in given.processes
        }
        found: dict[str, dict[str, Any]] = {}
        for turn in range(given.turns):
            for name, way in ways.items():
                made = way()
                print(report(f"turn {turn}, {name}", made), flush=True)
                best = found.setdefault(name, made)
                found[name] = min(best, made, key=lambda one: one["seconds"])
        result = {"vocab": given.vocab, "found": found, "environment": environment()}
        result["loader_tokens_s"] = loading(folder / "made")
        print(f"loader: {result['loader_tokens_s'] / 1e6:.1f} M tokens/s", flush=True)
        if given.minutes:
            result["memory"] = memory_of(given.minutes, path, tokenizer, folder / "stream", max(given.processes))
    if given.out:
        write_json(given.out, result)
    for beginning in ("plain text", "files as they are"):
        if len({one["sha256"] for name, one in found.items() if name.startswith(beginning)}) > 1:
            sys.exit("token files differ")


if __name__ == "__main__":
    main()
