"""After how many seconds is a recipe as good as transformers' Trainer becomes in all of its time?

    python benchmarks/time_to_quality.py TRIALS.json BASELINE.json [--variant "as it is"] [--out FILE.json]

TRIALS are of `equal_time.py RUN --seconds 45 60 90 360 --out TRIALS.json`, BASELINE of `trainer_baseline.py RUN`, both
on the token files of one run and one kind of GPU. Every length is a training of its own, with a schedule that ends
there. Between two lengths the bits per byte are drawn as a line over the logarithm of the seconds; beyond the ends
nothing is guessed. Figures of several seeds are means.
"""

import argparse
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from lilliput.base.environment import environment
from lilliput.base.files import read_json, write_json


def by_seconds(trials: Sequence[Mapping[str, Any]], figure: str) -> dict[float, float]:
    """Return the mean of a figure over the seeds for each length in seconds, the shortest first."""
    found = defaultdict(list)
    for one in trials:
        found[float(one["seconds"])].append(one[figure])
    return {seconds: statistics.mean(found[seconds]) for seconds in sorted(found)}


def seconds_to(goal: float, reached: Mapping[float, float]) -> float | None:
    """Return the seconds after which `goal` bits per byte are reached; None if no length reaches it.

    If the shortest length does already, that is what is returned: at most so many.
    """
    points = list(reached.items())
    if points and points[0][1] <= goal:
        return points[0][0]
    for (begin, worse), (end, better) in pairwise(points):
        if better <= goal < worse:
            share = (worse - goal) / (worse - better)
            return math.exp(math.log(begin) + share * math.log(end / begin))
    return None


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("trials", type=Path)
    options.add_argument("baseline", type=Path)
    options.add_argument("--variant", default="as it is")
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    ours, theirs = read_json(chosen.trials), read_json(chosen.baseline)
    reached = by_seconds([one for one in ours["trials"] if one["variant"] == chosen.variant], "mean")
    if not reached:
        options.error(f"no trial of {chosen.variant!r} in {chosen.trials}")
    trainer = by_seconds(theirs["trials"], "bits_per_byte")
    longest = max(trainer)
    goal = min(trainer[longest], *(bits for one in theirs["trials"] for _, bits in one["curve"]))
    needed = seconds_to(goal, reached)
    for seconds, bits in reached.items():
        print(f"{chosen.variant}, {seconds:g} s: {bits:.4f} bits per byte")
    print(f"the Trainer, {longest:g} s: {goal:.4f} bits per byte, the best of its curve")
    if needed is None:
        print("not reached in any of these lengths")
    else:
        at_most = "at most " * (needed == min(reached))
        print(f"reached after {at_most}{needed:.0f} s, {at_most}{needed / longest:.0%} of its time")
    if chosen.out:
        machines = {"environment": environment(), "trials": ours["environment"], "baseline": theirs["environment"]}
        figures = {"variant": chosen.variant, "reached": reached, "goal": goal, "seconds": needed, "of": longest}
        write_json(chosen.out, machines | figures)


if __name__ == "__main__":
    main()
