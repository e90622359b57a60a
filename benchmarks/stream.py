"""Does a residual stream in bf16 cost quality, against one in fp32?

    python benchmarks/stream.py TOKENS.npy [--steps N] [--seeds N] [--held N] [--out FILE.json] [--device cpu]

TOKENS.npy holds uint16 ids below 8,192 of real text, documents one after the other, each begun by id 0. SLM-10M trains
on all but the last 1,024 rows of them, the same tokens in the same order with either stream; the held-out cross-entropy
is of those rows. AdamW at the card's rate, steps of 131,072 positions.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import lilliput.model
from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.base.units import Share, Steps, Tokens
from lilliput.data.batch import Batch, Cursor, document_ids_of
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.objective import build_objectives
from lilliput.optim.schedule import WarmupStableDecay
from lilliput.recipes.slm_10m import model as spec
from lilliput.recipes.slm_10m import pretrain
from lilliput.train.loop import Trainer
from lilliput.train.machine import Machine
from lilliput.train.phase import Stage
from lilliput.train.validation import total_headline

LENGTH = 1024


def batch_of(rows: np.ndarray) -> Batch:
    tokens = torch.from_numpy(rows.astype(np.int64))
    return Batch(
        tokens=tokens,
        weight=torch.ones(tokens.shape),
        document_ids=torch.from_numpy(document_ids_of(rows.astype(np.int64), 0)),
    )


class Rows:
    """Rows of the tokens, in an order of its own for each pass."""

    def __init__(self, tokens: np.ndarray, seed: int):
        self._tokens, self._seed = tokens, seed
        self._rows = (len(tokens) - 1) // LENGTH
        self.tokens_available = len(tokens)

    def read(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> tuple[Batch, Cursor]:
        begin = cursor.of("rows")
        places = [self._place(row) for row in range(begin, begin + rows)]
        found = np.stack([self._tokens[place * LENGTH : place * LENGTH + length] for place in places])
        return batch_of(found), self.skip(cursor, rows, length)

    def skip(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> Cursor:
        return Cursor(positions=(("rows", cursor.of("rows") + rows),))

    def _place(self, row: int) -> int:
        turn, place = divmod(row, self._rows)
        if getattr(self, "_turn", None) != turn:
            self._turn, self._order = turn, np.random.default_rng([self._seed, turn]).permutation(self._rows)
        return int(self._order[place])


class Quiet:
    """Watches nothing."""

    def __enter__(self) -> "Quiet":
        return self

    def __exit__(self, *_: object) -> None: ...

    def log_step(self, *_: object) -> None: ...

    def log_validation(self, *_: object) -> None: ...


def arm(tokens: np.ndarray, held: np.ndarray, machine: Machine, steps: int, rows: int, seed: int) -> dict[str, float]:
    phase = replace(
        pretrain,
        tokens=Tokens(steps * rows * LENGTH),
        batch_tokens=rows * LENGTH,
        stages=(Stage(share=1.0, objective=NextToken()),),
        schedule=WarmupStableDecay(warmup=Share(0.1), decay=Share(0.3)),
        save_every=Steps(10**9),
        measure_every=Steps(10**9),
    )
    model = spec.build(seed).to(machine.device)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        Trainer(model, phase, Rows(tokens, seed), machine, folder=Path(folder), seed=seed, report=print).train(
            lambda _: Quiet(), lambda *_: {}
        )  # type: ignore[arg-type]
    seconds = time.perf_counter() - begun
    parts = (held[begin : begin + 64 * LENGTH].reshape(-1, LENGTH) for begin in range(0, len(held), 64 * LENGTH))
    objective = build_objectives([NextToken()], model, seed=0)[0]
    total = total_headline(objective, (batch_of(part) for part in parts), replace(machine, precision="fp32"))
    assert total is not None
    nats, count = total
    return {"seed": seed, "held_out_nats": round(nats / count, 5), "seconds": round(seconds, 1)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("tokens", type=Path)
    options.add_argument("--steps", type=int, default=300)
    options.add_argument("--rows", type=int, default=128)
    options.add_argument("--held", type=int, default=1024, help="rows held out, the last ones")
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--device", default="cuda")
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    tokens = np.load(chosen.tokens)
    tokens, held = np.split(tokens, [len(tokens) - chosen.held * LENGTH])
    machine = Machine(device=chosen.device, precision="bf16", rows=chosen.rows).resolved()
    narrow, results = lilliput.model.stream_precision, {}
    for name, precision in (("bf16", narrow), ("fp32", lambda weight: weight.dtype)):
        lilliput.model.stream_precision = precision
        results[name] = [arm(tokens, held, machine, chosen.steps, chosen.rows, seed) for seed in range(chosen.seeds)]
        mean = statistics.mean(result["held_out_nats"] for result in results[name])
        print(f"stream in {name}: held-out {mean:.4f} nats a token; {results[name]}", flush=True)
        if chosen.out:
            write_json(chosen.out, {"environment": environment(), "steps": chosen.steps, "results": results})


if __name__ == "__main__":
    main()
