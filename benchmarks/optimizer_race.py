"""How much sooner does NorMuon come to AdamW's bits per byte on real text, with as many trials each?

    python benchmarks/optimizer_race.py FOLDER --encode FILE.jsonl.xz...         once, on any machine
    python benchmarks/optimizer_race.py FOLDER [--steps 400] [--known FILE.json] [--out FILE.json] [--device cpu]

The model of SLM-10M's card with its schedule, 131,072 tokens a step, bf16. Both optimizers are tried at five learning
rates, each twice the one before. The best one is trained with two more seeds: AdamW's as long as before, NorMuon's with
shorter schedules, each of which ends with its own decay. Where the held-out bits per byte that those end in pass
through AdamW's is the number of steps that NorMuon needs, and with the median time of a step the time. Trials are
shared by the GPUs there are; those that the file of --known has are not trained again. Bits per byte are means over the
files; FILE.png is the picture.
"""

import argparse
import itertools
import math
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from lilliput.base.environment import environment
from lilliput.base.files import read_json, write_json
from lilliput.base.units import Share, Steps, Tokens
from lilliput.data.corpora.files import TextFiles
from lilliput.data.mixture import Mixture
from lilliput.data.shards import Shards, write_shards
from lilliput.data.split import Split
from lilliput.optim.adamw import AdamW
from lilliput.optim.normuon import NorMuon
from lilliput.recipes import slm_10m
from lilliput.tokenizer.bpe import BPE
from lilliput.train.loop import Trainer
from lilliput.train.machine import Machine
from lilliput.train.validation import Measurement, make_validator

RATES = {"AdamW": (5e-4, 1e-3, 2e-3, 4e-3, 8e-3), "NorMuon": (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)}
SEEDS = (0, 1, 2)
SHORTER = (0.25, 0.35, 0.5, 0.7)
"""Schedules of NorMuon, as shares of AdamW's steps."""
MEASUREMENTS = 10
"""Of held-out text in a trial."""
POSITIONS = 524_288
"""Of held-out text, measured each time."""
OPTIMIZERS = {
    "AdamW": lambda rate: AdamW(lr=rate),
    "NorMuon": lambda rate: NorMuon(lr=rate, adam_lr=rate),
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training."""

    optimizer: str
    rate: float
    steps: int
    seed: int = 0


def encode(files: Sequence[str], folder: Path, vocab: int = slm_10m.model.vocab) -> None:
    """Learn the card's tokenizer from the first file, encode each, hold out one document in fifty.

    Files are read side by side: one after another, 13 of them took 100 s on 32 cores.
    """
    split = Split()
    texts = (one.text for one in TextFiles(paths=(files[0],)).documents() if not split.is_heldout(one.group))
    tokenizer = BPE(vocab=vocab).train(texts)
    processes = min(len(files), os.cpu_count() or 1)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        folders = [folder / f"{number:03d}" for number in range(len(files))]
        for sides in pool.map(_encode, files, [tokenizer.to_str()] * len(files), folders):
            print({side: {name: f"{count:,}" for name, count in numbers.items()} for side, numbers in sides.items()})


def _encode(file: str, tokenizer: str, folder: Path) -> dict[str, dict[str, int]]:
    return write_shards(TextFiles(paths=(file,)), Tokenizer.from_str(tokenizer), Split(), folder).index["sides"]


def train(trial: Trial, folder: Path, machine: Machine, rows: int) -> dict[str, Any]:
    """What became of a trial: held-out bits per byte over steps, and what a step took."""
    device = torch.cuda.current_device() if machine.device == "cuda" else None
    files = {file.name: Shards(file) for file in sorted(folder.iterdir())}
    length = slm_10m.pretrain.length
    phase = replace(
        slm_10m.pretrain,
        tokens=Tokens(trial.steps * rows * length),
        batch_tokens=rows * length,
        data=Mixture(weights=dict.fromkeys(files, 1.0)),  # however short a schedule is, it reads of all
        optimizer=OPTIMIZERS[trial.optimizer](trial.rate),
        schedule=replace(slm_10m.pretrain.schedule, warmup=Share(0.05), decay=Share(0.3)),
        save_every=Steps(10**9),
        measure_every=Share(1 / MEASUREMENTS),
    )
    model = _model(machine).build(trial.seed).to(machine.device)
    curve = _Curve()
    with tempfile.TemporaryDirectory() as checkpoints:
        Trainer(
            model, phase, phase.data.open(files), machine, folder=Path(checkpoints), seed=trial.seed, report=print
        ).train(lambda _: curve, make_validator(files, length, machine, POSITIONS // len(files)))  # type: ignore[arg-type]
    end = curve.points[-1][1]
    step = statistics.median(curve.seconds[5:])
    print(f"{trial} ends at {end:.4f} bits per byte, {1e3 * step:.2f} ms a step, GPU {device}", flush=True)
    return asdict(trial) | {"bits_per_byte": end, "step_seconds": step, "curve": curve.points, "gpu": device}


class _Curve:
    """Watches a phase."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []
        self.seconds: list[float] = []
        self._last = time.perf_counter()

    def __enter__(self) -> "_Curve":
        return self

    def __exit__(self, *_: object) -> None: ...

    def log_step(self, *_: object) -> None:
        now = time.perf_counter()  # the loop has just read the step's numbers from the device
        self.seconds.append(now - self._last)
        self._last = now

    def log_validation(self, step: int, tokens: int, measured: Measurement, headline: str = "cross_entropy") -> None:
        self.points.append((step, statistics.mean(filter(None, measured.heldout.values()))))
        self._last = time.perf_counter()


def _model(machine: Machine) -> Any:
    return replace(slm_10m.model, layers=2) if machine.device == "cpu" else slm_10m.model


def race(
    pool: Any, folder: Path, machine: Machine, steps: int, rows: int, known: list[dict[str, Any]]
) -> dict[str, Any]:
    """All trials, the second half of which depend on the first."""
    there = {Trial(**{field.name: each[field.name] for field in fields(Trial)}): each for each in known}

    def run(trials: list[Trial]) -> list[dict[str, Any]]:
        new = [trial for trial in trials if trial not in there]
        there.update(
            zip(new, pool.map(train, new, *(itertools.repeat(each) for each in (folder, machine, rows))), strict=True)
        )
        return [there[trial] for trial in trials]

    # In turns the other way round, so that either GPU sees both.
    names = itertools.cycle([*OPTIMIZERS, *reversed(OPTIMIZERS)])
    places = [place for place in range(len(RATES["AdamW"])) for _ in OPTIMIZERS]
    swept = run(
        [
            Trial(optimizer=name, rate=RATES[name][place], steps=steps)
            for name, place in zip(names, places, strict=False)
        ]
    )
    best = {
        name: min((each for each in swept if each["optimizer"] == name), key=lambda each: each["bits_per_byte"])["rate"]
        for name in OPTIMIZERS
    }
    seeds = [Trial(optimizer="AdamW", rate=best["AdamW"], steps=steps, seed=seed) for seed in SEEDS[1:]]
    shorter = [
        Trial(optimizer="NorMuon", rate=best["NorMuon"], steps=round(share * steps), seed=seed)
        for share in SHORTER
        for seed in SEEDS
    ]
    trials = swept + run(shorter + seeds)
    return {"best": best, "equal": equal(trials, best), "trials": trials}


def equal(trials: list[dict[str, Any]], best: dict[str, float]) -> list[dict[str, float]]:
    """By seed: the steps and the time that NorMuon needs to end where AdamW does, as shares of AdamW's.

    Interpolated over the logarithm of the steps; where even the shortest schedule ends lower, its length is told.
    """
    chosen = [each for each in trials if each["rate"] == best[each["optimizer"]]]
    longest = [each for each in trials if each["steps"] == max(each["steps"] for each in trials)]
    milliseconds = {
        name: statistics.median(each["step_seconds"] for each in longest if each["optimizer"] == name) for name in best
    }
    found = []
    for seed in SEEDS:
        mine = [each for each in chosen if each["seed"] == seed]
        (adam,) = (each for each in mine if each["optimizer"] == "AdamW")
        ours = sorted((each["steps"], each["bits_per_byte"]) for each in mine if each["optimizer"] == "NorMuon")
        needed = _crossing(ours, adam["bits_per_byte"])
        share = needed / adam["steps"]
        found.append(
            {
                "seed": seed,
                "bits_per_byte": adam["bits_per_byte"],
                "steps": share,
                "seconds": share * milliseconds["NorMuon"] / milliseconds["AdamW"],
                "at_most": ours[0][1] <= adam["bits_per_byte"],
            }
        )
    return found


def _crossing(points: list[tuple[int, float]], level: float) -> float:
    """Steps at which ends fall to a level; the shortest if all are below, the longest line's continuation if none."""
    if points[0][1] <= level:
        return points[0][0]
    for (early, high), (late, low) in itertools.pairwise(points):
        if low <= level or (late, low) == points[-1]:
            part = (high - level) / (high - low)
            return math.exp(math.log(early) + part * (math.log(late) - math.log(early)))
    raise AssertionError("there are two points at least")


def show(result: dict[str, Any]) -> None:
    for name in OPTIMIZERS:
        trials = [each for each in result["trials"] if each["optimizer"] == name]
        first = {each["rate"]: each["bits_per_byte"] for each in reversed(trials) if each["seed"] == 0}
        step = statistics.median(each["step_seconds"] for each in trials)
        ends = "".join(f"  {rate:g}: {first[rate]:.4f}" for rate in RATES[name])
        print(f"{name}, bits per byte at rates of{ends}; {1e3 * step:.2f} ms a step")
    for each in result["equal"]:
        most = "at most " if each["at_most"] else ""
        print(
            f"seed {each['seed']}: to end at AdamW's {each['bits_per_byte']:.4f} NorMuon needs {most}"
            f"{100 * each['steps']:.0f}% of the steps, {100 * each['seconds']:.0f}% of the time"
        )


def draw(result: dict[str, Any], picture: Path) -> None:
    """Held-out bits per byte: of the rates, and over time at the best ones."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    sweep, curves = figure.subplots(1, 2)
    colours = dict(zip(OPTIMIZERS, ("#08519c", "#d94801"), strict=True))
    longest = max(each["steps"] for each in result["trials"])
    for name, colour in colours.items():
        trials = [each for each in result["trials"] if each["optimizer"] == name]
        swept = sorted(
            (each for each in trials if each["steps"] == longest and each["seed"] == 0), key=lambda each: each["rate"]
        )
        sweep.plot(*zip(*((each["rate"], each["bits_per_byte"]) for each in swept), strict=True), "o-", color=colour)
        step = statistics.median(each["step_seconds"] for each in trials)
        for each in trials:
            if each["rate"] == result["best"][name]:
                seconds = [point * step for point, _ in each["curve"]]
                curves.plot(seconds, [value for _, value in each["curve"]], color=colour, linewidth=0.9)
                curves.plot(seconds[-1], each["bits_per_byte"], "o", color=colour, markersize=4)
        curves.plot([], [], color=colour, label=f"{name}, {result['best'][name]:.0e}")
    sweep.set_xscale("log")
    rates = sorted({rate for each in RATES.values() for rate in each})
    sweep.set_xticks(rates, [f"{rate:g}" for rate in rates])
    sweep.minorticks_off()
    sweep.set(xlabel="learning rate", ylabel="held-out bits per byte at the end", title="Trials")
    curves.set(xlabel="seconds of training", ylabel="held-out bits per byte", title="Best rates, every seed and length")
    ends = [each["bits_per_byte"] for each in result["trials"]]
    curves.set_ylim(min(ends) - 0.02, min(ends) + 0.5)
    for axes in (sweep, curves):
        axes.grid(alpha=0.3)
    curves.legend()
    figure.savefig(picture, dpi=120)


def _take_gpu(numbers: Any) -> None:
    """Of a process of the pool: one GPU for itself."""
    torch.cuda.set_device(numbers.get())


class _Here:
    """A pool of this process alone."""

    map = staticmethod(map)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--encode", nargs="+", metavar="FILE")
    arguments.add_argument("--steps", type=int, default=400)
    arguments.add_argument("--rows", type=int, default=128)
    arguments.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    arguments.add_argument("--known", type=Path)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    if given.encode:
        encode(given.encode, given.folder)
        return
    machine = Machine(device=given.device, rows=given.rows).resolved()
    machine.apply()
    known = read_json(given.known)["trials"] if given.known else []
    if given.device == "cpu":
        result = race(_Here, given.folder, machine, given.steps, given.rows, known)
    else:
        spawn, count = get_context("spawn"), torch.cuda.device_count()
        numbers = spawn.SimpleQueue()
        for number in range(count):
            numbers.put(number)
        with ProcessPoolExecutor(count, spawn, _take_gpu, (numbers,)) as pool:
            result = race(pool, given.folder, machine, given.steps, given.rows, known)
    show(result)
    if given.out:
        write_json(given.out, {"environment": environment(), "rows": given.rows, "steps": given.steps} | result)
        draw(result, given.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
