"""Do fp32, bf16 and fp16 train the recipes to the same held-out loss?

    python benchmarks/precisions.py [RECIPE...] [--longer 10] [--device cpu] [--out FILE.json]

Every recipe whose parts are built, shrunken, with its phases some times as long, trained in each precision with three
seeds, several at a time. Held-out numbers are those at the end of each phase; a difference of a precision to fp32 is
told beside what the seeds of fp32 differ by (their standard deviation) and its own standard error.
"""

import argparse
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.base.implemented import unimplemented_parts
from lilliput.base.units import Tokens
from lilliput.recipe import load_recipe, names
from lilliput.run import pipeline
from lilliput.shrink import shrink
from lilliput.train.machine import Machine
from lilliput.train.metrics_file import measured_of, read_metrics, released
from lilliput.train.phase import Phase

PRECISIONS = ("fp32", "bf16", "fp16")
SEEDS = (0, 1, 2)


def train(name: str, precision: str, seed: int, longer: int, device: str) -> dict[str, float]:
    """The last held-out numbers of each phase, by phase and corpus."""
    small = shrink(load_recipe(name))
    entries = [
        replace(entry, tokens=Tokens(longer * int(entry.tokens))) if isinstance(entry, Phase) else entry
        for entry in small.timeline
    ]
    machine = Machine(device=device, precision=precision, threads=1, compile="off")  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        recipe = replace(small, timeline=tuple(entries), seed=seed)
        pipeline.train(recipe, run, machine, Console(file=StringIO()))
        ends = {
            path.parent.name: released(measured_of(read_metrics(path))[-1])
            for path in sorted(run.glob("phases/*/metrics.jsonl"))
        }
    return {f"{phase} {corpus}": value for phase, line in ends.items() for corpus, value in line.items()}


def judged(found: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """By held-out number: mean, standard deviation, and each precision's distance to fp32 in standard errors."""
    result: dict[str, dict[str, Any]] = {}
    for what in found["fp32"][0]:
        values = {precision: [seed[what] for seed in seeds] for precision, seeds in found.items()}
        means = {precision: statistics.mean(each) for precision, each in values.items()}
        spread = statistics.stdev(values["fp32"])
        # The same seed draws the same weights and text, so it is the differences that have a standard error.
        differences = {
            precision: [one - other for one, other in zip(values[precision], values["fp32"], strict=True)]
            for precision in PRECISIONS[1:]
        }
        result[what] = {"means": means, "seeds": spread} | {
            precision: {
                "difference": statistics.mean(each),
                "standard_error": statistics.stdev(each) / len(each) ** 0.5,
            }
            for precision, each in differences.items()
        }
    return result


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    able = [name for name in names("lilliput.recipes") if not unimplemented_parts(load_recipe(name))]
    arguments.add_argument("recipes", nargs="*", default=able)
    arguments.add_argument("--longer", type=int, default=10)
    arguments.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    arguments.add_argument("--processes", type=int, default=9)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    results: dict[str, Any] = {}
    with ProcessPoolExecutor(given.processes, get_context("spawn")) as pool:
        begun = {
            (name, precision, seed): pool.submit(train, name, precision, seed, given.longer, given.device)
            for name in given.recipes
            for precision in PRECISIONS
            for seed in SEEDS
        }
        for name in given.recipes:
            found = {precision: [begun[name, precision, seed].result() for seed in SEEDS] for precision in PRECISIONS}
            results[name] = judged(found)
            for what, each in results[name].items():
                print(
                    f"{name:18} {what:28} fp32 {each['means']['fp32']:.4f}, seeds {each['seeds']:.4f}"
                    + "".join(
                        f"; {kind} {each[kind]['difference']:+.4f} (± {each[kind]['standard_error']:.4f})"
                        for kind in PRECISIONS[1:]
                    ),
                    flush=True,
                )
            if given.out:
                write_json(given.out, {"environment": environment(), "longer": given.longer, "results": results})


if __name__ == "__main__":
    main()
