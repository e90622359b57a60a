"""Is the exchange of gradients as fast as PyTorch's DistributedDataParallel over a slow link, and does overlap pay?

    sudo python benchmarks/exchange.py [--gbit 9 1] [--rounds 5] [--steps 4] [--out FILE.json]

Two processes of one thread each, in two network namespaces of this machine (Linux, root, iproute2), joined by a link
that `tc tbf` limits in both directions. They train one SLM-10M by gloo on random tokens: forward, backward and the sum
of fp32 gradients over both ranks, which are compared. Rounds take turns in the same processes; a round is the median of
its steps, on the slower rank.

    ours    buckets travel while the backward pass computes the rest
    after   the same buckets, all sent when the backward pass has ended
    bf16    ours, in half the bytes
    ddp     DistributedDataParallel, fp32
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.data.batch import Cursor
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.noise import Noise
from lilliput.objectives.objective import build_objectives
from lilliput.plan.synthetic_data import RandomRows
from lilliput.recipes import slm_10m
from lilliput.train.gradient_buckets import GradientBuckets

ROWS, LENGTH = 2, 256
"""Of a rank: some 0.4 s of work on one thread, so that there is something to send gradients behind."""
SPACES = ("lilliput0", "lilliput1")


@contextmanager
def linked(gbit: float):
    """Two namespaces, 10.77.0.1 and 10.77.0.2, and a link of that speed between them."""

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    for space in SPACES:
        subprocess.run(["ip", "netns", "del", space], stderr=subprocess.DEVNULL)
        ip("netns", "add", space)
    ip("link", "add", "lilli0", "netns", SPACES[0], "type", "veth", "peer", "name", "lilli0", "netns", SPACES[1])
    for rank, space in enumerate(SPACES):
        ip("-n", space, "addr", "add", f"10.77.0.{rank + 1}/24", "dev", "lilli0")
        ip("-n", space, "link", "set", "lo", "up")
        ip("-n", space, "link", "set", "lilli0", "up")
        bucket = ["burst", f"{max(256, int(256 * gbit))}kb", "latency", "50ms"]
        command = ["tc", "-n", space, "qdisc", "add", "dev", "lilli0", "root", "tbf", "rate", f"{gbit}gbit", *bucket]
        subprocess.run(command, check=True)
    try:
        yield
    finally:
        for space in SPACES:
            ip("netns", "del", space)


def added(group: Any, bucket: distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """DDP's hook of a sum."""
    work = distributed.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])  # type: ignore[union-attr]


def rank_main(rank: int, rounds: int, steps: int) -> None:
    """Time both exchanges by turns, and print the medians of the rounds from the first rank."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method="tcp://10.77.0.1:29400", rank=rank, world_size=2, timeout=timedelta(minutes=5)
    )
    spec = replace(slm_10m.model, vocab=16_384)
    batch = RandomRows(spec.vocab).read(Cursor(), 2 * ROWS, LENGTH + 1)[0].map(lambda one: one[rank * ROWS :][:ROWS])
    denominator, progress, noise = 2.0 * ROWS * LENGTH, torch.zeros(()), Noise("cpu")

    def built() -> nn.Module:
        return build_objectives([NextToken()], spec.build(seed=0), seed=0)[0]

    ours, theirs = built(), DistributedDataParallel(built())
    theirs.register_comm_hook(None, added)
    buckets = GradientBuckets(dict(ours.named_parameters()))
    narrow = GradientBuckets(dict(ours.named_parameters()), torch.bfloat16)

    def step_ours(buckets: GradientBuckets = buckets) -> None:
        loss = ours(batch, denominator, 0, progress, noise).loss
        with buckets.reduced():
            loss.backward()

    def step_after() -> None:
        ours(batch, denominator, 0, progress, noise).loss.backward()
        with buckets.reduced():
            pass

    def step_theirs() -> None:
        theirs(batch, denominator, 0, progress, noise).loss.backward()

    def seconds(step: Callable[[], None], module: nn.Module) -> float:
        times = []
        for _ in range(steps):
            module.zero_grad()
            distributed.barrier()
            begun = time.perf_counter()
            step()
            taken = torch.tensor(time.perf_counter() - begun)
            distributed.all_reduce(taken, op=distributed.ReduceOp.MAX)
            times.append(float(taken))
        return statistics.median(times)

    seconds(step_ours, ours), seconds(step_theirs, theirs)  # the first ones make what is kept
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(one.grad, other.grad)
    arms = {
        "ours": (step_ours, ours),
        "after": (step_after, ours),
        "bf16": (partial(step_ours, narrow), ours),
        "ddp": (step_theirs, theirs),
    }
    found: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, (step, module) in arms.items():
            found[name].append(seconds(step, module))
    if rank == 0:
        print("RESULT", json.dumps(found), flush=True)
    distributed.destroy_process_group()


def compare(gbit: float, rounds: int, steps: int) -> dict[str, Any]:
    """Both exchanges over a link of that speed."""
    there = os.environ | {"GLOO_SOCKET_IFNAME": "lilli0", "OMP_NUM_THREADS": "1"}
    options = ["--rounds", str(rounds), "--steps", str(steps)]
    with linked(gbit):
        ranks = [
            subprocess.Popen(
                ["ip", "netns", "exec", space, sys.executable, __file__, *options, "--rank", str(rank)],
                env=there,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank, space in enumerate(SPACES)
        ]
        said = [process.communicate()[0] for process in ranks]
    found = json.loads(next(line for line in said[0].splitlines() if line.startswith("RESULT")).removeprefix("RESULT"))
    medians = {name: statistics.median(times) for name, times in found.items()}
    ratios = {f"{name} over ours": medians[name] / medians["ours"] for name in ("after", "bf16", "ddp")}
    return {"seconds": found, "median": medians} | ratios


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--gbit", type=float, nargs="+", default=[9.0, 1.0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--steps", type=int, default=4)
    options.add_argument("--rank", type=int, help="of a process: one of the two")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    if given.rank is not None:
        rank_main(given.rank, given.rounds, given.steps)
        return
    results = {}
    for gbit in given.gbit:
        results[f"{gbit:g} Gbit/s"] = found = compare(gbit, given.rounds, given.steps)
        times = ", ".join(f"{name} {value:.3f} s" for name, value in found["median"].items())
        print(f"{gbit:g} Gbit/s: {times} a step", flush=True)
    if given.out:
        write_json(given.out, {"environment": environment(), "results": results})


if __name__ == "__main__":
    main()
