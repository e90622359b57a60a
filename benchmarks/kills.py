"""Does a run that is killed, wherever, end in the weights of one that is not?

    python benchmarks/kills.py [--whole] [--minutes 10] [--workers 1] [--external N] [--seed 0] [--out FILE.json]

A small timeline (two stages, an average, growths, instruction tuning) is run straight, which counts the boundaries:
every write, fsync, rename and removal, and every end of a step. Then it is begun again and again and killed before one
of them, each in turn, of one part of the run after the other and drawn within it, or every fifth time (`--external`
times in all, if that is given) at a random moment from outside; killed a second time where it goes on, let end, and its
weights are compared. --whole does so with bags, a stack, an average, SFT, a local teacher's replies, DPO, LiNeS and two
releases.

Workers are processes with folders of their own, below TMPDIR, which share the boundaries among them; each needs a core
and computes in one thread. FILE.json, and FILE.md beside it, are written every few seconds.
"""

import argparse
import os
import shutil
import sys
import time
from collections import Counter, defaultdict
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
GRACE, WHOLE_GRACE = 60.0, 600.0
"""Seconds that a run which has begun may take beyond the time there is: of the small timeline, and of the whole one."""


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
    whole: bool
    """True for the timeline from bags to DPO."""

    @property
    def result(self) -> Path:
        return self.folder / "result.json"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--whole", action="store_true")
    arguments.add_argument("--minutes", type=float, default=10.0)
    arguments.add_argument("--workers", type=int, default=1)
    arguments.add_argument("--external", type=int, help="kills from outside in all; else every fifth run has one")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the workers and of all that they start
    with TemporaryDirectory() as work:
        for result in compare(Path(work), given):
            if given.out:
                write_json(given.out.with_suffix(".json"), result)
                write_text(given.out.with_suffix(".md"), markdown(result))
            print(summary(result), flush=True)
    print(markdown(result))
    sys.exit(0 if result["runs"] and not result["differ"] and not result["failed_workers"] else 1)


def compare(work: Path, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Kill as many runs as there is time for; what was found so far, every few seconds and at the end."""
    began, until = time.time(), time.time() + 60 * given.minutes
    workers, external = given.workers, given.external
    shares, processes = [], []
    for worker in range(workers):
        most = float("inf") if external is None else external // workers + (worker < external % workers)
        folder = work / f"worker-{worker}"
        folder.mkdir()
        about = {"seed": given.seed, "until": until, "external": most, "whole": given.whole}
        shares.append(Share(worker=worker, workers=workers, folder=folder, **about))
        processes.append(get_context("spawn").Process(target=kill, args=(shares[-1],)))
        processes[-1].start()
    grace = WHOLE_GRACE if given.whole else GRACE
    while any(process.is_alive() for process in processes) and time.time() < until + grace:
        processes[0].join(LOOKS) if processes[0].is_alive() else time.sleep(LOOKS)
        yield merged(shares, began)
    for process in processes:
        process.kill()
        process.join()
    yield merged(shares, began) | {"failed_workers": sum(process.exitcode != 0 for process in processes)}


def kill(share: Share) -> None:
    """Kill the runs of one worker, and keep what is found in its folder."""
    work, draw = share.folder, Random(f"{share.seed}/{share.worker}")
    timeline = tiny_kills.whole_timeline if share.whole else tiny_kills.small_timeline
    boundaries = tiny_kills.finished(work, work / "straight", timeline=timeline)
    assert boundaries is not None
    expected = hashes(work / "straight")
    began = time.monotonic()
    assert tiny_kills.finished(work, work / "again", timeline=timeline) == boundaries
    seconds = time.monotonic() - began  # without what only the first one has to import
    assert hashes(work / "again") == expected
    parts = (work / "again.parts").read_text().split("\n")
    mine, left = by_turns(parts, share.seed)[share.worker :: share.workers], []  # the same order for all workers
    found = {"boundaries": boundaries, "straight": expected, "straight_seconds": round(seconds, 1)}
    found |= {"runs": 0, "placed": 0, "external": 0, "killed_at": [], "killed_in": {}, "differ": []}
    write_json(share.result, found)
    while time.time() < share.until:
        from_outside = found["external"] < share.external and found["runs"] % OUTSIDE == OUTSIDE - 1
        left = left or list(mine)
        place = None if from_outside else left.pop(0)
        after = draw.uniform(0.0, seconds) if from_outside else None
        run = work / "killed"
        try:
            first, second = tiny_kills.killed(work, run, place, after, draw, boundaries, timeline)
            why = None if hashes(run) == expected else "other weights"
        except AssertionError as error:
            first, second, why = True, False, f"it does not go on: {error}"
        found["runs"] += 1
        found["placed"] += (first and not from_outside) + second
        found["external"] += first and from_outside
        found["killed_at"] += [place] if place is not None and first and place not in found["killed_at"] else []
        if place is not None and first:
            found["killed_in"][parts[place - 1]] = found["killed_in"].get(parts[place - 1], 0) + 1
        found["differ"] += [{"boundary": place, "after_seconds": after, "why": why}] if why else []
        write_json(share.result, found)
        shutil.rmtree(run)


def hashes(run: Path) -> dict[str, str]:
    """Of the weights of every phase and every release."""
    return tiny_kills.trained(run) | tiny_kills.released(run)


def by_turns(parts: list[str], seed: int) -> list[int]:
    """Every boundary, from 1: one of each part of the run after the other, in an order that is drawn within each."""
    draw, places = Random(seed), defaultdict(list)
    for place, part in enumerate(parts, 1):
        places[part].append(place)
    drawn = [draw.sample(each, len(each)) for each in places.values()]
    return [each.pop() for _ in range(max(map(len, drawn))) for each in draw.sample(drawn, len(drawn)) if each]


def merged(shares: list[Share], began: float) -> dict[str, Any]:
    """What all workers have found so far."""
    results = [read_json(share.result) for share in shares if share.result.exists()]
    straight = results[0]["straight"] if results else {}
    differ = [one for result in results for one in result["differ"]]
    differ += [{"why": "the runs without a kill differ"} for result in results if result["straight"] != straight]
    placed, external = (sum(result[key] for result in results) for key in ("placed", "external"))
    return {
        "boundaries": max((result["boundaries"] for result in results), default=0),
        "boundaries_killed_at": len({place for result in results for place in result["killed_at"]}),
        "killed_in": dict(sum((Counter(result["killed_in"]) for result in results), Counter())),
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
    rows |= {
        f"killed in {part or 'what is before all parts'}": count for part, count in sorted(result["killed_in"].items())
    }
    lines = [f"| {name} | {value:,} |" for name, value in rows.items()]
    return "\n".join(["# Killed and continued (`benchmarks/kills.py`)", "", "| | |", "|---|--:|", *lines, ""])


if __name__ == "__main__":
    main()
