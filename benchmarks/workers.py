"""How much faster do two workers train, and what do they exchange?

    python benchmarks/workers.py SHAPE... [--workers 2] [--steps 25] [--device cpu] [--out FILE.json]

Shapes are those of step.py, whose loop over random tokens this is. One worker trains the shape's step alone; then as
many as are asked for, started by torchrun, share that step (strong scaling), and take one of that size each (weak
scaling). Efficiency is their tokens a second over one worker's, compiled in the same way, times their number.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from step import SHAPES, Stopwatch, shaped, summary

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.plan.synthetic_data import RandomRows
from lilliput.train.all_reduce import AllReduce
from lilliput.train.loop import Trainer
from lilliput.train.machine import Machine
from lilliput.train.ranks import Alone


def worker(name: str, times: int, steps: int, device: str, count: int) -> None:
    """Train `times` the rows of a shape's step, and say how fast, from the first worker."""
    spec, phase = shaped(name, steps, device == "cpu", times)
    exchange = AllReduce() if count > 1 else Alone()
    compiles = "off" if device == "cpu" else "blocks"
    rows = phase.batch_tokens // phase.length  # of a pass: all of a worker's
    machine = Machine(device=device, precision="bf16", rows=rows, compile=compiles, exchange=exchange).resolved()
    with machine.exchange.join(device) as workers:
        model = spec.build(seed=0).to(device)
        watch = Stopwatch(torch.device(device), steps, profile=False)
        with tempfile.TemporaryDirectory() if workers.rank == 0 else nullcontext("nowhere") as folder:
            Trainer(
                model, phase, RandomRows(spec.vocab), machine, folder=Path(folder), seed=0, report=print, ranks=workers
            ).train(lambda _: watch, lambda *_: {})  # type: ignore[arg-type]
        if workers.rank == 0:
            parameters = sum(parameter.numel() for parameter in model.parameters())
            print("RESULT", json.dumps(summary(watch.ends, phase.batch_tokens, parameters, last=watch.losses[-1])))


def measured(name: str, times: int, steps: int, device: str, count: int) -> dict[str, Any]:
    """What workers of that number say."""
    start = [] if count == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    options = [name, "--times", str(times), "--steps", str(steps), "--device", device, "--workers", str(count)]
    run = subprocess.run([sys.executable, *start, __file__, *options], capture_output=True, text=True)
    (found,) = [line for line in run.stdout.splitlines() if line.startswith("RESULT ")] or [""]
    if not found:
        raise SystemExit(f"{run.stdout}\n{run.stderr}")
    return json.loads(found.removeprefix("RESULT "))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("shapes", nargs="+", choices=SHAPES)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--steps", type=int, default=25)
    arguments.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    arguments.add_argument("--times", type=int, help="of a worker: rows of the shape's step times this")
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    if given.times:
        worker(*given.shapes, given.times, given.steps, given.device, given.workers)
        return
    results: dict[str, Any] = {}
    for name in given.shapes:
        cases = {"one worker": (1, 1), "strong": (1, given.workers), "weak": (given.workers, given.workers)}
        results[name] = {}
        for case, (times, count) in cases.items():
            found = results[name][case] = measured(name, times, given.steps, given.device, count)
            speed, alone = found["tokens_per_second"], results[name]["one worker"]["tokens_per_second"]
            found["efficiency"] = round(speed / alone / count, 3)
            print(
                f"{name:14} {case:11} {count} x {found['milliseconds']:8.2f} ms {speed:12,} tokens/s, "
                f"efficiency {100 * found['efficiency']:5.1f}%, {found['peak_gib'] or 0:.1f} GiB",
                flush=True,
            )
        if given.out:
            write_json(given.out, {"environment": environment(), "workers": given.workers, "results": results})


if __name__ == "__main__":
    main()
