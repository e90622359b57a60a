"""Does a GPU run that is killed go on to the weights, bit for bit, of one that is not?

    python benchmarks/killed_on_gpu.py SHAPE... [--steps 60] [--kills 2] [--seed 0] [--device cpu] [--out FILE.json]

Shapes are those of step.py, trained by NorMuon on tokens of which few are frequent, as in text. One process trains them
straight, with a cache of its own for what it compiles. Another one is killed (SIGKILL) at a random moment after its
first checkpoint, as often as asked; each time it goes on in a process that finds nothing compiled. A hash of all
weights is compared.
"""

import argparse
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from step import SHAPES, Stopwatch, shaped

from lilliput.base.environment import environment
from lilliput.base.files import read_json, write_json
from lilliput.base.units import Steps
from lilliput.data.batch import Batch, Cursor, document_ids_of
from lilliput.optim.normuon import NorMuon
from lilliput.train.loop import Trainer
from lilliput.train.machine import Machine
from lilliput.train.phase import Phase

SAVES = 8
"""Checkpoints of a phase."""
WITHIN = 0.8
"""Of the time that a straight run takes from its first checkpoint to its end: a kill comes before that."""
DOCUMENT = 700


class Skewed:
    """A reader of random tokens, the n-th of which is as frequent as 1 / n; other ones from every cursor."""

    tokens_available = 2**62

    def __init__(self, vocab: int):
        self._ends = torch.arange(1, vocab + 1, dtype=torch.float64).reciprocal().cumsum(0)

    def read(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> tuple[Batch, Cursor]:
        at = cursor.of("tokens")
        draw = torch.Generator().manual_seed(at)
        tokens = torch.searchsorted(self._ends, self._ends[-1] * torch.rand(rows, length, generator=draw).double())
        tokens[torch.rand(rows, length, generator=draw) < 1 / DOCUMENT] = 0
        batch = Batch(
            tokens=tokens.clamp(max=len(self._ends) - 1),
            weight=torch.ones(rows, length),
            document_ids=torch.from_numpy(document_ids_of(tokens.numpy(), end=0)),
        )
        return batch, self.skip(cursor, rows, length, overlap)

    def skip(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> Cursor:
        return Cursor(positions=(("tokens", cursor.of("tokens") + rows * (length - overlap)),))


def phase_of(name: str, steps: int, device: str) -> tuple[Any, Phase]:
    spec, phase = shaped(name, steps, device == "cpu")
    return spec, replace(phase, optimizer=NorMuon(lr=1e-3, adam_lr=1e-3), save_every=Steps(max(1, steps // SAVES)))


def train(name: str, steps: int, device: str, folder: Path) -> None:
    """What a process does: train to the end, and say what came of it."""
    spec, phase = phase_of(name, steps, device)
    model = spec.build(seed=0).to(device)
    watch = Stopwatch(torch.device(device), steps, profile=False)
    Trainer(
        model,
        phase,
        Skewed(spec.vocab),
        Machine(device=device, precision="bf16").resolved(),
        folder=folder / "checkpoints",
        seed=0,
        report=print,
    ).train(lambda _: watch, lambda *_: {})  # type: ignore[arg-type]
    weights = b"".join(parameter.detach().cpu().numpy().tobytes() for parameter in model.parameters())
    write_json(folder / "end.json", {"weights": hashlib.sha256(weights).hexdigest(), "losses": watch.losses})


def start(name: str, steps: int, device: str, folder: Path, cache: Path) -> subprocess.Popen[bytes]:
    """Train in a process that finds nothing compiled."""
    options = [name, "--steps", str(steps), "--device", device, "--train", str(folder)]
    there = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache), "TRITON_CACHE_DIR": str(cache / "triton")}
    return subprocess.Popen([sys.executable, __file__, *options], env=there, stdout=subprocess.DEVNULL)


def first_checkpoint(process: subprocess.Popen[bytes], folder: Path, beyond: int) -> int:
    """Wait for a checkpoint beyond step `beyond`, and return its step."""
    while process.poll() is None:
        whole = [path.parent.name for path in folder.glob("checkpoints/step-*/manifest.json")]
        newest = max((int(name.removeprefix("step-")) for name in whole if name[-1].isdigit()), default=0)
        if newest > beyond:
            return newest
        time.sleep(0.01)
    raise SystemExit(f"{folder.name} ended before it was to be killed: ask for more steps")


def compare(name: str, steps: int, kills: int, device: str, seed: int, folder: Path) -> dict[str, Any]:
    """Both runs of a shape."""
    chance, straight, killed = random.Random(seed), folder / "straight", folder / "killed"
    process = start(name, steps, device, straight, folder / "compiled")
    first_checkpoint(process, straight, 0)
    begun = time.perf_counter()
    if process.wait():
        raise SystemExit(f"{name} cannot be trained here")
    rest = time.perf_counter() - begun
    reached = []
    for number in range(kills):
        process = start(name, steps, device, killed, folder / f"compiled-{number}")
        reached.append(first_checkpoint(process, killed, reached[-1] if reached else 0))
        time.sleep(WITHIN * chance.random() * rest / (kills + 1))
        process.kill()
        process.wait()
    assert start(name, steps, device, killed, folder / "compiled-last").wait() == 0
    ends = [read_json(each / "end.json") for each in (straight, killed)]
    return {"equal": ends[0]["weights"] == ends[1]["weights"], "killed after step": reached, "steps": steps} | ends[0]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("shapes", nargs="+", choices=SHAPES)
    options.add_argument("--steps", type=int, default=60)
    options.add_argument("--kills", type=int, default=2)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    options.add_argument("--train", type=Path, help="of a process: train in this folder")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    if given.train:
        (name,) = given.shapes
        train(name, given.steps, given.device, given.train)
        return
    results = {}
    for name in given.shapes:
        with tempfile.TemporaryDirectory() as folder:
            found = compare(name, given.steps, given.kills, given.device, given.seed, Path(folder))
        results[name] = {key: value for key, value in found.items() if key != "losses"}
        results[name]["last loss"] = found["losses"][-1]
        print(
            f"{name:14} {'equal' if found['equal'] else 'DIFFERENT'} after {given.kills} kills, behind steps "
            f"{found['killed after step']} of {given.steps}; weights {found['weights'][:12]}",
            flush=True,
        )
        if given.out:
            write_json(given.out, {"environment": environment(), "results": results})


if __name__ == "__main__":
    main()
