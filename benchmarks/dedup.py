"""How fast are near-duplicates found, beside datasketch, and do both find the same?

    python benchmarks/dedup.py FILE... [--most 5000000] [--datasketch 2000] [--out FILE.json]

Of the texts in the files, at most so many bytes of each are read into memory, and every tenth text is planted again
with one word in sixty replaced. Then one core finds what shares a bucket with an earlier text: datasketch's MinHash and
MinHashLSH, which get fewer texts; `NearDuplicates` with the same runs of words, number of hashes and buckets, its keys
in batches and in one set; the same text by text, as in a recipe. Last, `lilliput curate` as a whole with one task:
reading JSON Lines, keys, comparison and writing. Seconds are those of the processor, so that neighbors count less.
"""

import argparse
import os
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ["RAYON_NUM_THREADS"] = "1"

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Filtered
from lilliput.data.corpora.filters.near_duplicates import NearDuplicates
from lilliput.data.documents import Document
from lilliput.data.key_set import KeySet

EVERY = 60
"""Words of a planted text, of which one is another."""
FILTER = NearDuplicates()


def planted(files: Iterable[str], most: int) -> tuple[list[str], int]:
    """Texts of the files, then nearly the same text for every tenth, and how many these are."""
    draw, texts = random.Random(0), []
    for file in files:
        size = 0
        for document in TextFiles(paths=(file,)).documents():
            texts.append(document.text)
            size += len(document.text.encode())
            if size >= most:
                break
    copies = []
    for text in texts[::10]:
        words = text.split(" ")
        for place in range(draw.randrange(EVERY), len(words), EVERY):
            words[place] = "something"
        copies.append(" ".join(words))
    return texts + copies, len(copies)


def one_by_one(texts: list[str]) -> list[bool]:
    step = FILTER.begin()
    return [isinstance(step(Document(text, "", "")), str) for text in texts]


def in_batches(texts: list[str]) -> list[bool]:
    seen = KeySet()
    return [keys is not None and seen.add(keys) for keys in FILTER.keys_of(texts)]


def by_datasketch(texts: list[str]) -> list[bool]:
    import re

    from datasketch import MinHash, MinHashLSH

    size = FILTER.buckets * FILTER.hashes
    index = MinHashLSH(num_perm=size, params=(FILTER.buckets, FILTER.hashes))
    word, found = re.compile(r"\w+"), []
    for number, text in enumerate(texts):
        words = word.findall(text.lower())
        runs = {" ".join(words[at : at + FILTER.n]) for at in range(len(words) - FILTER.n + 1)}
        signature = MinHash(num_perm=size)
        signature.update_batch([run.encode() for run in runs])
        found.append(bool(runs) and bool(index.query(signature)))
        if runs:
            index.insert(number, signature)
    return found


def curated(texts: list[str]) -> list[bool]:
    """The whole command but for its start, which is not measured; what it finds is not told by text."""
    import json

    from lilliput.data.curate.curation import Curate

    with TemporaryDirectory() as work:
        rows = (json.dumps({"text": text, "id": str(number)}) + "\n" for number, text in enumerate(texts))
        (Path(work) / "texts.jsonl").write_text("".join(rows))
        source = TextFiles(paths=(str(Path(work) / "texts.jsonl"),))
        corpus = Filtered(source=source, filters=(FILTER,))
        began = time.process_time()
        Curate(corpus=corpus, out=Path(work) / "out", name="texts", tasks=1).run()
        seconds.append(time.process_time() - began)
        kept = {document.id for document in TextFiles(paths=(str(Path(work) / "out" / "texts"),)).documents()}
    return [str(number) not in kept for number in range(len(texts))]


seconds: list[float] = []
"""Seconds of `curated` without the files it begins with."""


def measured(name: str, find: Callable[[list[str]], list[bool]], texts: list[str], copies: int) -> dict[str, Any]:
    """Speed, and the share of planted texts among those that are found and not."""
    began = time.process_time()
    found = find(texts)
    took = seconds.pop() if seconds else time.process_time() - began
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    row = {
        "what": name,
        "texts": len(texts),
        "megabytes": round(megabytes, 1),
        "megabytes_a_processor_second": round(megabytes / took, 2),
        "recall": sum(found[-copies:]) / copies,
        "others": sum(found[:-copies]),
    }
    speed = f"{megabytes:.1f} | {megabytes / took:.1f}"
    print(f"| {name} | {len(texts):,} | {speed} | {row['recall']:.1%} | {row['others']} |")
    return row


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("files", nargs="+")
    arguments.add_argument("--most", type=int, default=5_000_000, help="bytes of each file")
    arguments.add_argument("--datasketch", type=int, default=2_000, help="texts that datasketch gets")
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    texts = planted(given.files, given.most)
    few = planted(given.files, max(1, given.most * given.datasketch // len(texts[0])))
    print("| what | texts | MB | MB/s | planted found | others found |\n|---|--:|--:|--:|--:|--:|")
    rows = []
    for name, find, (of, copies) in (
        ("datasketch", by_datasketch, few),
        ("`NearDuplicates`, the same texts", in_batches, few),
        ("`NearDuplicates`, in batches", in_batches, texts),
        ("`NearDuplicates`, text by text", one_by_one, texts),
        ("`lilliput curate`, all of it", curated, texts),
    ):
        rows.append(measured(name, find, of, copies))
    if given.out:
        write_json(given.out, {"environment": environment(), "filter": asdict(FILTER), "rows": rows})


if __name__ == "__main__":
    main()
