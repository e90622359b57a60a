"""Does a run that is killed, wherever, end in the weights of one that is not?

    python benchmarks/kills.py [--minutes 10] [--workers 1] [--external N] [--seed 0] [--out FILE.json]

A small timeline (two stages, an average, growths, instruction tuning) is run straight, which counts the boundaries:
every write, fsync, rename and removal, and every end of a step. Then it is begun again and again and killed before one
of them, each in turn and shuffled, or every fifth time (`--external` times in all, if that is given) at a random moment
from outside; killed a second time where it goes on, let end, and its weights are compared.

Workers are processes with folders of their own, below TMPDIR, which share the boundaries among them; each needs a core
and computes in one thread. FILE.json, and FILE.md beside it, are written every few seconds.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import tiny_kills

from lilliput.base.environment import environment
from lilliput.base.files import read_json, write_json, write_text

OUTSIDE = 5
"""Every so many runs are killed from outside."""
LOOKS = 5.0
"""Seconds between two looks at what workers have found."""
GRACE = 60.0
"""Seconds that a run which has begun may take beyond the time there is."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one of several workers does."""

    worker: int
    workers: int
    folder: Path
    seed: int
    until: float
    """By the clock."""
    external: float
    """Kills from outside at most; infinity for no limit but time."""

    @property
    def result(self) -> Path:
        return self.folder / "result.json"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=10.0)
    arguments.add_argument("--workers", type=int, default=1)
    arguments.add_argument("--external", type=int, help="kills from outside in all; else every fifth run has one")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the workers and of all that they start
    with TemporaryDirectory() as work:
        for result in compare(Path(work), given.minutes, given.workers, given.external, given.seed):
            if given.out:
                write_json(given.out.with_suffix(".json"), result)
                write_text(given.out.with_suffix(".md"), markdown(result))
            print(summary(result), flush=True)
    print(markdown(result))
    sys.exit(0 if result["runs"] and not result["differ"] and not result["failed_workers"] else 1)


def compare(work: Path, minutes: float, workers: int, external: int | None, seed: int) -> Iterator[dict[str, Any]]:
    """Kill as many runs as there is time for; what was found so far, every few seconds and at the end."""
    began, until = time.time(), time.time() + 60 * minutes
    shares, processes = [], []
    for worker in range(workers):
        most = float("inf") if external is None else external // workers + (worker < external % workers)
        folder = work / f"worker-{worker}"
        folder.mkdir()
        shares.append(Share(worker=worker, workers=workers, folder=folder, seed=seed, until=until, external=most))
        processes.append(get_context("spawn").Process(target=kill, args=(shares[-1],)))
        processes[-1].start()
    while any(process.is_alive() for process in processes) and time.time() < until + GRACE:
        processes[0].join(LOOKS) if processes[0].is_alive() else time.sleep(LOOKS)
        yield merged(shares, began)
    for process in processes:
        process.kill()
        process.join()
    yield merged(shares, began) | {"failed_workers": sum(process.exitcode != 0 for process in processes)}


def kill(share: Share) -> None:
    """Kill the runs of one worker, and keep what is found in its folder."""
    work, draw = share.folder, Random(f"{share.seed}/{share.worker}")
    boundaries = tiny_kills.finished(work, work / "straight")
    assert boundaries is not None
    expected = tiny_kills.trained(work / "straight")
    began = time.monotonic()
    assert tiny_kills.finished(work, work / "again") == boundaries
    seconds = time.monotonic() - began  # without what only the first one has to import
    assert tiny_kills.trained(work / "again") == expected
    every = Random(share.seed).sample(range(1, boundaries + 1), boundaries)  # the same order for all workers
    mine, left = every[share.worker :: share.workers], []
    found = {"boundaries": boundaries, "straight": expected, "straight_seconds": round(seconds, 1)}
    found |= {"runs": 0, "placed": 0, "external": 0, "killed_at": [], "differ": []}
    write_json(share.result, found)
    while time.time() < share.until:
        from_outside = found["external"] < share.external and found["runs"] % OUTSIDE == OUTSIDE - 1
        left = left or draw.sample(mine, len(mine))
        place = None if from_outside else left.pop()
        after = draw.uniform(0.0, seconds) if from_outside else None
        run = work / "killed"
        try:
            first, second = tiny_kills.killed(work, run, place, after, draw, boundaries)
            why = None if tiny_kills.trained(run) == expected else "other weights"
        except AssertionError as error:
            first, second, why = True, False, f"it does not go on: {error}"
        found["runs"] += 1
        found["placed"] += (first and not from_outside) + second
        found["external"] += first and from_outside
        found["killed_at"] += [place] if place is not None and first and place not in found["killed_at"] else []
        found["differ"] += [{"boundary": place, "after_seconds": after, "why": why}] if why else []
        write_json(share.result, found)
        shutil.rmtree(run)


def merged(shares: list[Share], began: float) -> dict[str, Any]:
    """What all workers have found so far."""
    results = [read_json(share.result) for share in shares if share.result.exists()]
    straight = results[0]["straight"] if results else {}
    differ = [one for result in results for one in result["differ"]]
    differ += [{"why": "the runs that nobody killed differ"} for result in results if result["straight"] != straight]
    placed, external = (sum(result[key] for result in results) for key in ("placed", "external"))
    return {
        "boundaries": max((result["boundaries"] for result in results), default=0),
        "boundaries_killed_at": len({place for result in results for place in result["killed_at"]}),
        "runs": sum(result["runs"] for result in results),
        "kills": placed + external,
        "placed": placed,
        "external": external,
        "differ": differ,
        "workers": len(shares),
        "straight": straight,
        "straight_seconds": max((result["straight_seconds"] for result in results), default=None),
        "minutes": round((time.time() - began) / 60, 1),
        "environment": environment(),
    }


def summary(result: dict[str, Any]) -> str:
    """The result in a line."""
    return (
        f"{result['minutes']} min: {result['kills']:,} kills ({result['placed']:,} placed, {result['external']:,} from "
        f"outside) in {result['runs']:,} runs, at {result['boundaries_killed_at']} of {result['boundaries']} "
        f"boundaries; {len(result['differ'])} ended otherwise"
    )


def markdown(result: dict[str, Any]) -> str:
    """The result as a table."""
    rows = {
        "boundaries of an unbroken run": result["boundaries"],
        "of these, killed at on a first start": result["boundaries_killed_at"],
        "runs that were killed and continued": result["runs"],
        "kills": result["kills"],
        "of these, placed at a boundary": result["placed"],
        "of these, from outside at a random moment": result["external"],
        "runs that ended in other weights, or not at all": len(result["differ"]),
        "workers": result["workers"],
        "minutes": result["minutes"],
    }
    lines = [f"| {name} | {value:,} |" for name, value in rows.items()]
    return "\n".join(["# Killed and continued (`benchmarks/kills.py`)", "", "| | |", "|---|--:|", *lines, ""])


if __name__ == "__main__":
    main()
