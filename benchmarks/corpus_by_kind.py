"""How much text of each kind is there, once it is sorted into the folders that slm-10m-hopper reads?

    python benchmarks/corpus_by_kind.py FOLDER FILE.jsonl.xz... [--out FILE.json]

Documents are sorted by their `family`: FOLDER/<kind>/<file>.jsonl has the rows of each file, unchanged. Kinds are those
of the recipe; families that it does not name are `other`. Arithmetic that others generated is left out: its expressions
could be those of evaluation items, which the recipe's own arithmetic never has. What is left out is counted.
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

LEFT_OUT = "Synthetic arithmetic"
"""How the `source` of rows begins that are left out."""


def sort(arguments: tuple[Path, Path]) -> Counter[str]:
    """Write the rows of a file by kind, and return the bytes of text of each, and of what was left out."""
    path, folder = arguments
    counts: Counter[str] = Counter()
    files = {kind: (folder / kind / f"{path.name.split('.')[0]}.jsonl").open("w", encoding="utf-8") for kind in TEXT}
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            kind = row["family"] if row["family"] in TEXT else "other"
            if row["source"].startswith(LEFT_OUT):
                kind = LEFT_OUT
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
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    for kind in TEXT:
        (chosen.folder / kind).mkdir(parents=True, exist_ok=True)
    with Pool() as pool:
        counts = sum(pool.imap_unordered(sort, [(path, chosen.folder) for path in chosen.files]), Counter())
    for kind, size in counts.most_common():
        print(f"{kind:22} {size / 1e6:8.1f} MB")
    if chosen.out:
        write_json(chosen.out, {"environment": environment(), "bytes": dict(counts)})


if __name__ == "__main__":
    main()
