"""Does `lilliput plan --probe` tell the truth?

    python benchmarks/plan_accuracy.py SHAPE... [--rows N] [--compile HOW] [--steps N] [--out FILE.json] [--device cpu]

Shapes: slm-10m (128 x 1,024), llama-194m (16 x 2,048), odinnext-138m (32 x 2,048), each a phase of its recipe with its
own objective, optimizer and average. First the plan is probed, then as many steps of the phase are trained on random
tokens; both in micro-batches that are found from memory, unless --rows says how many. The median of the steps after the
fifth, and the most memory handed out (on CUDA; elsewhere it is unknown), predicted, measured, and their ratio.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.base.text_units import duration, size
from lilliput.base.units import Share, Steps, Tokens
from lilliput.model import ModelSpec
from lilliput.optim.schedule import Constant
from lilliput.plan import plan, probe
from lilliput.plan.synthetic_data import RandomRows
from lilliput.recipe import Recipe
from lilliput.recipes import mtlm1_200m, odinnext_138m, slm_10m
from lilliput.train.loop import Trainer
from lilliput.train.machine import Machine
from lilliput.train.memory import give_back
from lilliput.train.phase import Phase

WARM = 5
SHAPES: dict[str, tuple[Recipe, ModelSpec, Phase, int, int]] = {
    "slm-10m": (slm_10m.recipe, slm_10m.model, slm_10m.pretrain, 128, 1024),
    "llama-194m": (mtlm1_200m.recipe, replace(mtlm1_200m.model, layers=24), mtlm1_200m.base, 16, 2048),
    "odinnext-138m": (odinnext_138m.recipe, odinnext_138m.model, odinnext_138m.end_to_end, 32, 2048),
}
"""Recipe, model, phase, rows and length of a step."""


class Stopwatch:
    """Watches a phase: when each step ended, and the most memory until then."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.peak = 0

    def __enter__(self) -> "Stopwatch":
        return self

    def __exit__(self, *_: object) -> None: ...

    def log_step(
        self, step: int, tokens: int, read: int, numbers: dict[str, float], headline: str = "cross_entropy"
    ) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            self.peak = torch.cuda.max_memory_allocated()
        self.ends.append(time.perf_counter())

    def log_validation(self, *_: object) -> None: ...


def shaped(name: str, steps: int, small: bool) -> tuple[Recipe, ModelSpec, Phase]:
    recipe, spec, phase, rows, length = SHAPES[name]
    if small:
        spec, rows, length = replace(spec, layers=2), 2, 128
    phase = replace(
        phase,
        tokens=Tokens(steps * rows * length),
        length=length,
        batch_tokens=rows * length,
        schedule=Constant(warmup=Share(1.0)),
        save_every=Steps(10**9),
        measure_every=Steps(10**9),
    )
    return replace(recipe, model=spec, timeline=(phase,)), spec, phase


def trained(spec: ModelSpec, phase: Phase, machine: Machine, others: int) -> dict[str, float | None]:
    """Seconds of the steps of a phase, and bytes beside `others`."""
    on_cuda = machine.device.startswith("cuda")
    give_back(machine.device)
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            spec.build(seed=0).to(machine.device),
            phase,
            RandomRows(spec.vocab),
            machine,
            folder=Path(folder),
            seed=0,
            report=print,
        ).train(lambda _: watch, lambda *_: {})  # type: ignore[arg-type,return-value]
    seconds = [later - sooner for sooner, later in zip(watch.ends[WARM - 1 :], watch.ends[WARM:], strict=False)]
    return {"seconds_per_step": statistics.median(seconds), "peak": watch.peak - others if on_cuda else None}


def compared(name: str, machine: Machine, steps: int, small: bool) -> dict[str, Any]:
    recipe, spec, phase = shaped(name, steps, small)
    begun, others = time.perf_counter(), torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
    (planned,) = plan(recipe, machine, costs=probe(recipe, machine, print))["phases"]
    probed = time.perf_counter() - begun
    predicted = {"seconds_per_step": planned["cost"]["seconds_per_step"], "peak": planned["memory"]["peak"]}
    measured = trained(spec, phase, machine, others)
    ratios = {
        key: predicted[key] / measured[key] if predicted[key] and measured[key] else None  # type: ignore[operator]
        for key in predicted
    }
    return {
        "micro_batches": planned["micro_batches"],
        "predicted": predicted,
        "measured": measured,
        "ratio": ratios,
        "seconds_of_probe": round(probed, 1),
    }


def show(name: str, found: dict[str, Any]) -> None:
    for key, shown in (("seconds_per_step", duration), ("peak", size)):
        if found["ratio"][key] is not None:
            told, real = (shown(found[side][key]) for side in ("predicted", "measured"))
            rows = found["micro_batches"]["rows"]
            print(
                f"{name:14} {key:16} predicted {told:>9}, measured {real:>9}, ratio {found['ratio'][key]:.3f} "
                f"(micro-batches of {rows} rows, probed in {found['seconds_of_probe']} s)",
                flush=True,
            )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("shapes", nargs="+", choices=SHAPES)
    options.add_argument("--rows", type=int, help="of a micro-batch at most")
    options.add_argument("--compile", default="auto", help="off, blocks or graphs")
    options.add_argument("--steps", type=int, default=15)
    options.add_argument("--device", default="cuda")
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    machine = Machine(device=chosen.device, rows=chosen.rows or "auto", compile=chosen.compile).resolved()
    machine.apply()
    results = {}
    for name in chosen.shapes:
        results[name] = compared(name, machine, chosen.steps, small=chosen.device == "cpu")
        show(name, results[name])
        if chosen.out:
            write_json(chosen.out, {"environment": environment(), "results": results})


if __name__ == "__main__":
    main()
