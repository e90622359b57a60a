"""Does a run that is killed, wherever, end in the weights of one that is not?

    python benchmarks/kills.py [--minutes 10] [--seed 0] [--out FILE.json]         also writes FILE.md beside it

A small timeline (two stages, an average, growths, instruction tuning) is run straight, which counts the boundaries:
every write, fsync, rename and removal, and every end of a step. Then it is begun again and again and killed before one
of them, each in turn and shuffled, or every fifth time at a random moment from outside; killed a second time where it
goes on, let end, and its weights are compared.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import tiny_kills

from lilliput.base.environment import environment
from lilliput.base.files import write_json, write_text

OUTSIDE = 5
"""Every so many runs are killed from outside."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=10.0)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    with TemporaryDirectory() as work:
        result = compare(Path(work), given.minutes, Random(given.seed))
    print(markdown(result))
    if given.out:
        write_json(given.out.with_suffix(".json"), result)
        write_text(given.out.with_suffix(".md"), markdown(result))
    sys.exit(0 if not result["differ"] and result["runs"] else 1)


def compare(work: Path, minutes: float, draw: Random) -> dict[str, Any]:
    """Kill as many runs as there is time for."""
    began = time.monotonic()
    boundaries = tiny_kills.finished(work, work / "straight")
    assert boundaries is not None
    seconds = time.monotonic() - began
    expected = tiny_kills.trained(work / "straight")
    left, places, differ, kills, outside, runs = [], set(), [], 0, 0, 0
    while time.monotonic() - began < 60 * minutes:
        left = left or draw.sample(range(1, boundaries + 1), boundaries)
        run, from_outside = work / "killed", runs % OUTSIDE == OUTSIDE - 1
        place = None if from_outside else left.pop()
        after = draw.uniform(0.0, seconds) if from_outside else None
        kills += tiny_kills.killed(work, run, place, after, draw, boundaries)
        if tiny_kills.trained(run) != expected:
            differ.append({"boundary": place, "after_seconds": after})
        runs, outside = runs + 1, outside + from_outside
        places |= {place} - {None}
        shutil.rmtree(run)
    return {
        "boundaries": boundaries,
        "boundaries_killed_at": len(places),
        "runs": runs,
        "kills": kills,
        "from_outside": outside,
        "differ": differ,
        "straight": expected,
        "straight_seconds": round(seconds, 1),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "environment": environment(),
    }


def markdown(result: dict[str, Any]) -> str:
    """The result as a table."""
    rows = {
        "boundaries of an unbroken run": result["boundaries"],
        "of these, killed at on a first start": result["boundaries_killed_at"],
        "runs that were killed and continued": result["runs"],
        "of these, first killed from outside at a random moment": result["from_outside"],
        "kills": result["kills"],
        "runs that ended in other weights": len(result["differ"]),
        "minutes": result["minutes"],
    }
    lines = [f"| {name} | {value:,} |" for name, value in rows.items()]
    return "\n".join(["# Killed and continued (`benchmarks/kills.py`)", "", "| | |", "|---|--:|", *lines, ""])


if __name__ == "__main__":
    main()
