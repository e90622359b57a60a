"""What does it cost to start on token files, and to compare blocks with their checksums while they are read?

    python benchmarks/token_files.py [--gigabytes 4] [--repeats 15] [--work FOLDER] [--out FILE.json]

Opens a folder of shards of random ids three times: hashing everything, then with what was remembered of that, then with
one shard that was touched. Then reads rows through the mixture reader: with the comparison, with every block compared
beforehand, and from a plain `numpy.memmap`. Reading is timed in processor time, the least of all repeats, taking turns.
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.base.hash_cache import RECENT, HashCache
from lilliput.data.batch import Cursor
from lilliput.data.mixture import MixtureReader
from lilliput.data.pieces import PIECES, write_pieces
from lilliput.data.shards import HELDOUT_TEXTS, Shards
from lilliput.data.token_files import TokenArray, header, in_bytes, seal_index
from lilliput.data.token_stream import TokenStream

SHARD = 100_000_000
READ = 10_000_000
LENGTHS = ((256, 16), (1_024, 32), (2_048, 32))
"""Tokens of a row, and rows of a batch."""


class Plain:
    """A file of numbers without checksums."""

    def __init__(self, path: Path):
        self._numbers = np.memmap(path, dtype="<u2", mode="r", offset=64)

    def __len__(self) -> int:
        return len(self._numbers)

    def read(self, first: int, after: int) -> np.ndarray:
        return self._numbers[first:after]

    def take(self, places: np.ndarray) -> np.ndarray:
        return self._numbers[places]


class Begins:
    """Where the documents of a shard begin."""

    path = Path()

    def __len__(self) -> int:
        return -(-SHARD // 700)

    def take(self, places: np.ndarray) -> np.ndarray:
        return places * 700


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--gigabytes", type=float, default=4)
    arguments.add_argument("--repeats", type=int, default=15)
    arguments.add_argument("--work", type=Path)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory(dir=given.work) as temporary:
        folder = write(Path(temporary) / "shards", round(given.gigabytes * 1e9 / SHARD / 2))
        result = {"starts": starts(folder), "reading": reading(folder, given.repeats), "environment": environment()}
    print(json.dumps(result, indent=2))
    if given.out:
        write_json(given.out, result)


def write(folder: Path, count: int) -> Path:
    """So many shards of random ids, an end token every seven hundred."""
    folder.mkdir()
    files, draw = [], np.random.default_rng(0)
    for place in range(count):
        ids = draw.integers(1, 8_192, size=SHARD, dtype=np.uint16)
        ids[::700] = 0
        name = f"train-{place:05}.bin"
        (folder / name).write_bytes(header("uint16", "0" * 64) + in_bytes(ids, "uint16"))
        files.append({"name": name, "side": "train", "tokens": SHARD, "documents": -(-SHARD // 700)})
    (folder / HELDOUT_TEXTS).touch()
    index = {"format": 2, "kind": "documents", "tokenizer": "0" * 64, "vocab": 8_192, "end": 0, "dtype": "uint16"}
    counts = {key: sum(file[key] for file in files) for key in ("tokens", "documents")} | {"bytes": 0}
    index |= {"files": files, "sides": {"train": counts, "heldout": dict.fromkeys(counts, 0)}}
    index["pieces"] = write_pieces(folder, index)
    seal_index(folder, index | {"files": [*files, {"name": PIECES}, {"name": HELDOUT_TEXTS}]})
    time.sleep(RECENT + 0.1)
    return folder


def starts(folder: Path) -> dict[str, Any]:
    """Seconds of opening."""
    seconds, known = {}, {}
    for name in ("hash all", "remember", "one of them touched"):
        if name == "one of them touched":
            (folder / "train-00000.bin").touch()
        began = time.perf_counter()
        verified = HashCache(folder, json.loads(json.dumps(known)))
        Shards(folder, verified=verified)
        seconds[name] = time.perf_counter() - began
        known = verified.plain()
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {"bytes": size, "seconds": seconds, "record_bytes": len(json.dumps(known))}


def reading(folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Nanoseconds a token."""
    path = folder / "train-00000.bin"
    (sums,) = (
        HashCache(folder)
        .check({path: json.loads((folder / "index.json").read_text())["files"][0]["sha256"]})[0]
        .values()
    )

    def compared() -> TokenArray:
        numbers = TokenArray(path, "uint16", sums, 2**16)
        numbers.read(0, len(numbers))
        return numbers

    ways = {
        "memmap": lambda: Plain(path),
        "compared before": compared,
        "compared": lambda: TokenArray(path, "uint16", sums, 2**16),
    }
    rows = []
    for length, count in LENGTHS:
        least = dict.fromkeys(ways, float("inf"))
        for _ in range(repeats):
            for name, way in ways.items():
                least[name] = min(least[name], read(way(), length, count))
        rows.append({"length": length, "rows": count} | {name: round(value, 3) for name, value in least.items()})
    return rows


def read(numbers: Any, length: int, count: int) -> float:
    """Processor nanoseconds a token of reading through the mixture, which takes the documents in a random order."""
    reader = MixtureReader({"a": 1.0}, {"a": TokenStream([numbers], 0, Begins())})
    cursor, done = Cursor(), 0
    began = time.process_time()
    while done < READ:
        _, cursor = reader.read(cursor, count, length + 1)
        done += count * length
    return (time.process_time() - began) / done * 1e9


if __name__ == "__main__":
    main()
