"""Does it slow training to read documents in a random order instead of one after the other?

    python benchmarks/reading.py [--tokens N] [--steps N] [--turns N] [--out FILE.json] [--device cpu]

Trains the shape of SLM-10M (128 rows of 1,024) on random tokens in documents of 500 and of 50 tokens on average, in
files as `write_shards` leaves them, through the loop of a phase: with rows that are read in the order of the files, and
with those of the mixture reader. Both take turns; the rate is the median over the second half of the steps of a turn,
the best of the turns. Host time is that of reading a batch alone.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.base.units import Share, Steps, Tokens
from lilliput.data.batch import Batch, Cursor, document_ids_of
from lilliput.data.mixture import Mixture
from lilliput.data.pieces import PIECES, write_pieces
from lilliput.data.shards import HELDOUT_TEXTS, Shards
from lilliput.data.token_files import header, in_bytes, seal_index
from lilliput.objectives.next_token import NextToken
from lilliput.optim.adamw import AdamW
from lilliput.optim.schedule import Constant
from lilliput.recipes import slm_10m
from lilliput.train.loop import Trainer
from lilliput.train.machine import Machine
from lilliput.train.phase import Phase, Stage
from lilliput.train.spike_detection import NoGuard

ROWS, LENGTH = 128, 1_024
FILE = 20_000_000
"""Tokens of a file."""


class InOrder:
    """Rows in the order of the files."""

    def __init__(self, shards: Shards):
        self._stream = shards.stream("train")

    @property
    def tokens_available(self) -> int:
        return len(self._stream)

    def read(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> tuple[Batch, Cursor]:
        first, step = cursor.of("a"), length - overlap
        tokens = np.stack([self._stream.read(first + row * step, length) for row in range(rows)])
        batch = Batch(
            tokens=torch.from_numpy(tokens),
            weight=torch.ones(rows, length),
            document_ids=torch.from_numpy(document_ids_of(tokens, self._stream.end)),
        )
        return batch, self.skip(cursor, rows, length, overlap)

    def skip(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> Cursor:
        return Cursor(positions=(("a", cursor.of("a") + rows * (length - overlap)),))


class Ends:
    """Watches a phase: when each step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __enter__(self) -> "Ends":
        return self

    def __exit__(self, *_: object) -> None: ...

    def log_step(
        self, step: int, tokens: int, read: int, numbers: dict[str, float], headline: str = "cross_entropy"
    ) -> None:
        self.times.append(time.perf_counter())

    def log_validation(self, *_: object) -> None: ...


def write(folder: Path, tokens: int, document: int) -> Shards:
    """Token files of random ids."""
    folder.mkdir()
    draw, files = np.random.default_rng(0), []
    for number in range(-(-tokens // FILE)):
        ids = draw.integers(1, 8_192, size=FILE, dtype=np.uint16)
        ids[0] = 0
        ids[draw.random(FILE) < 1 / document] = 0
        name = f"train-{number:05}.bin"
        (folder / name).write_bytes(header("uint16", "0" * 64) + in_bytes(ids, "uint16"))
        files.append({"name": name, "side": "train", "tokens": FILE, "documents": int((ids == 0).sum())})
    (folder / HELDOUT_TEXTS).touch()
    counts = {key: sum(file[key] for file in files) for key in ("tokens", "documents")} | {"bytes": 0}
    index = {"format": 2, "kind": "documents", "tokenizer": "0" * 64, "vocab": 8_192, "end": 0, "dtype": "uint16"}
    index |= {"files": files, "sides": {"train": counts, "heldout": dict.fromkeys(counts, 0)}}
    index["pieces"] = write_pieces(folder, index)
    seal_index(folder, index | {"files": [*files, {"name": PIECES}, {"name": HELDOUT_TEXTS}]})
    return Shards(folder)


def rate(reader: Any, machine: Machine, steps: int, small: bool) -> float:
    """Tokens a second of training."""
    rows, length = (2, 128) if small else (ROWS, LENGTH)
    spec = replace(slm_10m.model, layers=2) if small else slm_10m.model
    phase = Phase(
        name="a",
        tokens=Tokens(steps * rows * length),
        length=length,
        batch_tokens=rows * length,
        data=Mixture(weights={"a": 1}),
        optimizer=AdamW(lr=1e-4),
        stages=(Stage(share=1.0, objective=NextToken()),),
        schedule=Constant(warmup=Share(1.0)),
        guard=NoGuard(),  # of random tokens there is nothing to learn
        save_every=Steps(10**9),
        measure_every=Steps(10**9),
    )
    ends = Ends()
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            spec.build(seed=0).to(machine.device),
            phase,
            reader,
            machine,
            folder=Path(folder),
            seed=0,
            report=lambda _: None,
        ).train(lambda _: ends, lambda *_: {})  # type: ignore[arg-type]
    return rows * length / statistics.median(np.diff(ends.times)[steps // 2 :].tolist())


def host(reader: Any, batches: int, small: bool) -> float:
    """Milliseconds of reading a batch, comparing blocks of the files with their checksums on the way."""
    cursor, rows, length = Cursor(), 2 if small else ROWS, (128 if small else LENGTH) + 1
    times = []
    for _ in range(batches):
        began = time.perf_counter()
        _, cursor = reader.read(cursor, rows, length)
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times[batches // 2 :])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--tokens", type=int, default=200_000_000)
    arguments.add_argument("--steps", type=int, default=400)
    arguments.add_argument("--turns", type=int, default=2)
    arguments.add_argument("--device", default="cuda")
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    machine, small = Machine(device=given.device).resolved(), given.device == "cpu"
    machine.apply()
    results = []
    for document in (500, 50):
        with tempfile.TemporaryDirectory() as temporary:
            shards = write(Path(temporary) / "shards", given.tokens, document)
            readers = {
                "in order": lambda: InOrder(shards),  # noqa: B023, called within this round
                "random order": lambda: Mixture(weights={"a": 1}).open({"a": shards}),  # noqa: B023
            }
            rates: dict[str, list[float]] = {name: [] for name in readers}
            for _ in range(given.turns):
                for name, made in readers.items():
                    rates[name].append(rate(made(), machine, given.steps, small))
            for name, made in readers.items():
                found = {"tokens_per_second": round(max(rates[name])), "turns": [round(one) for one in rates[name]]}
                results.append(
                    {"document": document, "order": name} | found | {"host_ms": round(host(made(), 200, small), 2)}
                )
                print(
                    f"{document:>4} tokens a document, {name:<12}  {found['tokens_per_second']:>10,} tokens/s  "
                    f"{results[-1]['host_ms']:>6.2f} ms to read a batch"
                )
    report = {"results": results, "tokens": given.tokens, "steps": given.steps, "environment": environment()}
    if given.out:
        write_json(given.out, report)
    else:
        print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
