"""Which accelerators of pretraining help a 10 million parameter model, at equal time on one GPU?

    python benchmarks/accelerators.py FOLDER --encode FILE.jsonl.xz...              once, on any machine
    python benchmarks/accelerators.py FOLDER ARM... [--tune 75] [--final 240] [--known FILE.json] [--out FILE.json]

The model of SLM-10M's card, 131,072 positions a step, bf16, a WSD schedule over the whole time of an arm, on real text.
Each arm is tried at three learning rates for --tune seconds and trained with two seeds at its best one for --final
seconds. A trial has as many steps as its time allows, by the steps of each stage that a short run takes first; neither
that run nor compilation counts. Held-out bits per byte are those of single tokens, means over the files.

    bag 1             ordinary training
    4-2-1             token superposition: bags of 4 for a fifth of the steps, of 2 for a tenth
    8-1               bags of 8 for three tenths
    bag 1, ahead      bag 1 with multi-token targets whose weight falls to 0
    4-2-1, ahead      both
    stack             half the layers for four tenths of the time, then stacked; the time of the base counts

Trials that the file of --known has are not trained again, so that a comparison may take several sessions.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from optimizer_race import encode

from lilliput.base.environment import environment
from lilliput.base.files import read_json, write_json
from lilliput.base.units import Share, Steps, Tokens
from lilliput.data.mixture import Mixture
from lilliput.data.shards import Shards
from lilliput.growth.growth import Lineage
from lilliput.growth.stack import Stack
from lilliput.model import LanguageModel
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.targets import MultiToken
from lilliput.optim.normuon import NorMuon
from lilliput.optim.schedule import WarmupStableDecay
from lilliput.recipes import slm_10m
from lilliput.train.loop import Trainer
from lilliput.train.machine import Machine
from lilliput.train.phase import Phase, Stage, tokens_per_position
from lilliput.train.validation import make_validator

RATES = (4e-3, 8e-3, 1.6e-2)
"""NorMuon's best rate for this model is in the middle (`benchmarks/optimizer_race.py`)."""
SEEDS = (0, 1)
ROWS = 128
CALIBRATION = 150
"""Steps of the run that tells how long a step of each stage takes."""
MEASUREMENTS = 12
"""Of held-out text in a trial."""
POSITIONS = 524_288
"""Of held-out text, measured each time."""
PARTS = 0.4
"""Share of the time that the small model of `stack` gets."""
AHEAD = MultiToken(count=2, weight=0.3, until=0.8)
WHOLE = (Stage(share=1.0, objective=NextToken()),)
SHRINKING = ((0.2, 4), (0.1, 2), (0.7, 1))


def _bags(parts: tuple[tuple[float, int], ...], further: MultiToken | None = None) -> tuple[Stage, ...]:
    return tuple(Stage(share=share, objective=NextToken(bag=bag, further=further)) for share, bag in parts)


ARMS: dict[str, tuple[Stage, ...]] = {
    "bag 1": WHOLE,
    "4-2-1": _bags(SHRINKING),
    "8-1": _bags(((0.3, 8), (0.7, 1))),
    "bag 1, ahead": _bags(((1.0, 1),), AHEAD),
    "4-2-1, ahead": _bags(SHRINKING, AHEAD),
    "stack": WHOLE,
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training."""

    arm: str
    rate: float
    seconds: float
    seed: int = 0


@dataclass(kw_only=True)
class Curve:
    """Watches a trial: held-out bits per byte over seconds of steps, text tokens and passes over the text."""

    available: int
    points: list[tuple[float, int, float, float]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    """Seconds of each step."""
    before: int = 0
    """Tokens of the phases before."""
    last: float = 0.0

    def __enter__(self) -> "Curve":
        self.last = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None: ...

    def log_step(self, step: int, tokens: int, *_: object) -> None:
        now = time.perf_counter()  # the loop has just read the step's numbers from the device
        self.times.append(now - self.last)
        self.last = now

    def log_validation(self, step: int, tokens: int, numbers: dict[str, float], headline: str = "") -> None:
        read = self.before + tokens
        seconds = steady(self.times)
        self.points.append((seconds, read, read / self.available, statistics.mean(numbers.values())))
        self.last = time.perf_counter()


def steady(times: Sequence[float]) -> float:
    """Return the seconds of steps together, those that compiled or captured a graph as a usual one."""
    return sum(min(time, 2 * statistics.median(times)) for time in times)


class Race:
    """Trains trials on one device and the text of a folder."""

    def __init__(self, folder: Path, machine: Machine, rows: int):
        self._files = {file.name: Shards(file) for file in sorted(folder.iterdir()) if file.is_dir()}
        self._machine, self._rows = machine, rows
        self._spec = replace(slm_10m.model, layers=4) if machine.device == "cpu" else slm_10m.model
        self._seconds: dict[tuple[str, int], float] = {}

    def train(self, trial: Trial) -> dict[str, Any]:
        """Train a trial and return its curve."""
        stages, layers = ARMS[trial.arm], self._spec.layers
        reader = Mixture(weights=dict.fromkeys(self._files, 1.0)).open(self._files)
        curve = Curve(available=reader.tokens_available)
        if trial.arm == "stack":
            small = replace(self._spec, layers=layers // 2)
            model = small.build(trial.seed).to(self._machine.device)
            base = self._phase(trial, stages, self._steps(trial, stages, layers // 2, PARTS))
            self._run(model, base, trial.seed, curve)
            curve.before = int(base.tokens)
            line = Lineage(model=model, tokenizer=None, average={})  # type: ignore[arg-type]
            model = Stack(times=2).grow(line, trial.seed).model
            left, seed = 1 - PARTS, trial.seed + 100
        else:
            model, left, seed = self._spec.build(trial.seed).to(self._machine.device), 1.0, trial.seed
        self._run(model, self._phase(trial, stages, self._steps(trial, stages, layers, left)), seed, curve)
        _, tokens, passes, end = curve.points[-1]
        print(f"{trial} ends at {end:.4f} bits per byte after {tokens:,} tokens, {passes:.2f} passes", flush=True)
        return asdict(trial) | {
            "bits_per_byte": end,
            "tokens": tokens,
            "passes": passes,
            "steps": len(curve.times),
            "step_milliseconds": 1e3 * statistics.median(curve.times),
            "seconds_of_steps": steady(curve.times),
            "curve": curve.points,
        }

    def _steps(self, trial: Trial, stages: tuple[Stage, ...], layers: int, share: float) -> int:
        """Return the steps that fit into a share of a trial's time, by those of a short run of the same stages."""
        key = (trial.arm, layers)
        if key not in self._seconds:
            model = replace(self._spec, layers=layers).build(0).to(self._machine.device)
            curve = Curve(available=1)
            steps = CALIBRATION if self._machine.device == "cuda" else 20
            self._run(model, self._phase(trial, stages, steps), 0, curve, measures=False)
            self._seconds[key] = sum(
                stage.share * seconds for stage, seconds in zip(stages, _each(stages, curve.times), strict=True)
            )
        return max(4, int(share * trial.seconds / self._seconds[key]))

    def _phase(self, trial: Trial, stages: tuple[Stage, ...], steps: int) -> Phase:
        length = slm_10m.pretrain.length
        tokens = math.ceil(steps * self._rows * length * tokens_per_position(stages, length))
        return replace(
            slm_10m.pretrain,
            tokens=Tokens(tokens),
            batch_tokens=self._rows * length,
            data=Mixture(weights=dict.fromkeys(self._files, 1.0)),
            stages=stages,
            optimizer=NorMuon(lr=trial.rate, adam_lr=trial.rate),
            schedule=WarmupStableDecay(warmup=Share(0.05), decay=Share(0.3)),
            save_every=Steps(10**9),
            measure_every=Share(1 / MEASUREMENTS),
        )

    def _run(self, model: LanguageModel, phase: Phase, seed: int, curve: Curve, *, measures: bool = True) -> None:
        measure = make_validator(self._files, phase.length, self._machine, POSITIONS // len(self._files))
        with tempfile.TemporaryDirectory() as folder:
            reader = phase.data.open(self._files)
            trainer = Trainer(model, phase, reader, self._machine, folder=Path(folder), seed=seed, report=print)
            trainer.train(lambda _: curve, measure if measures else lambda *_: {"none": math.nan})  # type: ignore[arg-type, return-value]


def _each(stages: tuple[Stage, ...], times: Sequence[float]) -> list[float]:
    """Return the median seconds of a step of each stage, without the first half of it, which compiles."""
    ends = [round(len(times) * end) for end in accumulate(stage.share for stage in stages)]
    return [statistics.median(times[(begin + end) // 2 : end]) for begin, end in pairwise([0, *ends])]


def best_rate(trials: list[dict[str, Any]], arm: str, seconds: float) -> float:
    """Return the learning rate of an arm's best tuning trial."""
    tried = [one for one in trials if (one["arm"], one["seconds"]) == (arm, seconds)]
    return min(tried, key=lambda one: one["bits_per_byte"])["rate"]


def table(trials: list[dict[str, Any]], final: float) -> str:
    """Return the finals as lines: bits per byte of each seed, mean and spread, tokens and passes."""
    lines = []
    for arm in ARMS:
        ends = [one for one in trials if (one["arm"], one["seconds"]) == (arm, final)]
        if not ends:
            lines.append(f"{arm:14} not run")
            continue
        values = [one["bits_per_byte"] for one in ends]
        spread = max(values) - min(values)
        lines.append(
            f"{arm:14} rate {ends[0]['rate']:g}  {statistics.mean(values):.4f} (spread {spread:.4f} of {len(values)})  "
            f"{ends[0]['steps']:,} steps of {ends[0]['step_milliseconds']:.1f} ms  {ends[0]['tokens']:,} tokens  "
            f"{ends[0]['passes']:.1f} passes"
        )
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("arms", nargs="*", metavar="ARM", help=f"of {', '.join(ARMS)}")
    options.add_argument("--encode", nargs="+", metavar="FILE")
    options.add_argument("--tune", type=float, default=75.0, metavar="SECONDS")
    options.add_argument("--final", type=float, default=240.0, metavar="SECONDS", help="0 for none")
    options.add_argument(
        "--until", type=float, default=math.inf, metavar="SECONDS", help="begin no trial after so many"
    )
    options.add_argument("--known", type=Path)
    options.add_argument("--device", default="cuda")
    options.add_argument("--rows", type=int, default=ROWS)
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    begun = time.perf_counter()
    if chosen.encode:
        encode(chosen.encode, chosen.folder)
        return
    if unknown := set(chosen.arms) - set(ARMS):
        options.error(f"no such arm: {', '.join(sorted(unknown))}; one of {', '.join(ARMS)}")
    trials: list[dict[str, Any]] = read_json(chosen.known)["trials"] if chosen.known else []
    precision = "bf16" if chosen.device == "cuda" else "fp32"
    race = Race(chosen.folder, Machine(device=chosen.device, precision=precision).resolved(), chosen.rows)
    names = [one.name for one in fields(Trial)]

    def run(trial: Trial) -> bool:
        """Train what is not known yet; False once time is up."""
        if any(asdict(trial) == {name: one[name] for name in names} for one in trials):
            return True
        if time.perf_counter() - begun + trial.seconds > chosen.until:
            return False
        trials.append(race.train(trial))
        if chosen.out:
            write_json(chosen.out, {"environment": environment(), "rows": chosen.rows, "trials": trials})
        return True

    for arm in chosen.arms:
        if not all(run(Trial(arm=arm, rate=rate, seconds=chosen.tune)) for rate in RATES):
            break
        rate = best_rate(trials, arm, chosen.tune)
        if chosen.final:
            [run(Trial(arm=arm, rate=rate, seconds=chosen.final, seed=seed)) for seed in SEEDS]
    print(table(trials, chosen.final))
    if torch.cuda.is_available():
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
