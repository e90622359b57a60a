"""How much text of each kind is there, once it is sorted into the folders that slm-10m-hopper reads?

    python benchmarks/corpus_by_kind.py FOLDER FILE.jsonl.xz... [--chats FILE.jsonl.xz] [--out FILE.json]

Documents are sorted by their `family`: FOLDER/<kind>/<file>.jsonl has the rows of each file, unchanged. Kinds are those
of the recipe; families that it does not name are `other`. `questions` are families of questions and answers, and the
conversations of --chats, which are written as "Question: ... Answer: ...". Arithmetic that others generated is left
out: its expressions could be those of evaluation items, which the recipe's own arithmetic never has. So is what comes
from the training split of a benchmark, BoolQ. What is left out is counted.
"""

import argparse
import json
import lzma
from collections import Counter
from multiprocessing import Pool
from pathlib import Path

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.recipes.slm_10m_hopper import TEXT

KINDS = {"medical_qa": "questions", "math": "questions"}
"""Kinds of families that are none themselves."""
LEFT_OUT = ("Synthetic arithmetic", "BoolQ")
"""How the `source` of rows begins that are left out."""


def sort(arguments: tuple[Path, Path]) -> Counter[str]:
    """Write the rows of a file by kind, and return the bytes of text of each, and of what was left out."""
    path, folder = arguments
    counts: Counter[str] = Counter()
    files = {kind: (folder / kind / f"{path.name.split('.')[0]}.jsonl").open("w", encoding="utf-8") for kind in TEXT}
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if "messages" in row:
                names = {"user": "Question", "assistant": "Answer"}
                turns = (f"{names[one['role']]}: {one['content'].strip()}" for one in row["messages"])
                row = {"text": "\n".join(turns), "family": "questions", "source": row["source"]}
                line = f"{json.dumps(row, ensure_ascii=False)}\n"
            kind = KINDS.get(row["family"], row["family"] if row["family"] in TEXT else "other")
            if left_out := next((source for source in LEFT_OUT if row["source"].startswith(source)), None):
                kind = left_out
            else:
                files[kind].write(line)
            counts[kind] += len(row["text"].encode())
    for file in files.values():
        file.close()
    return counts


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("files", type=Path, nargs="+", metavar="FILE")
    options.add_argument("--chats", type=Path, nargs="+", default=[], metavar="FILE")
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    for kind in TEXT:
        (chosen.folder / kind).mkdir(parents=True, exist_ok=True)
    with Pool() as pool:
        counts = sum(
            pool.imap_unordered(sort, [(path, chosen.folder) for path in (*chosen.files, *chosen.chats)]), Counter()
        )
    for kind, size in counts.most_common():
        print(f"{kind:22} {size / 1e6:8.1f} MB")
    if chosen.out:
        write_json(chosen.out, {"environment": environment(), "bytes": dict(counts)})


if __name__ == "__main__":
    main()
