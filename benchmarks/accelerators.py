"""Which accelerators of pretraining help a 10 million parameter model, at equal time on one GPU?

    python benchmarks/accelerators.py FOLDER --encode FILE.jsonl.xz...              once, on any machine
    python benchmarks/accelerators.py FOLDER ARM... [--tune 75] [--final 240] [--known FILE.json...] [--out FILE.json]

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
    blocks 25%        DiffusionBlocks of four blocks for a quarter of the time, then ordinary training
    blocks 50%        for half of it
    blocks 80%        for four fifths, as odinnext-138m has of its tokens
    blocks 50%, port  with the noise of a public port: sigma from 5 to 10, overlap 0.05

An arm of two phases has an optimizer and a schedule for each, as in odinnext-138m: blocks warm up over four times the
share of steps, as a block takes one step in four, and do not decay; what follows warms up again and decays over the
last three tenths of the whole time, as ordinary training does, or over four fifths of what is left. All numbers of the
curves are those of the ordinary pass through all layers, in the phase of blocks too, where it is not what is trained.
Beside them, where that phase ends: how well its sampler predicts held-out tokens, in as many steps as there are blocks.

--model odinnext-138m compares arms for that model, with the batch, the losses and the one learning rate of its recipe,
in one seed; tokens of its vocabulary are encoded with --encode --model odinnext-138m, in another folder.

Trials that a file of --known has are not trained again, so that a comparison may take several sessions.
`benchmarks/accelerators_page.py` makes tables and curves of FILE.json.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from optimizer_race import encode

from lilliput.base.environment import environment
from lilliput.base.files import read_json, write_json
from lilliput.base.units import Share, Steps, Tokens
from lilliput.data.batch import Batch
from lilliput.data.mixture import Mixture
from lilliput.data.shards import Shards
from lilliput.growth.growth import Lineage
from lilliput.growth.stack import Stack
from lilliput.model import LanguageModel
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.noise import Noise
from lilliput.objectives.objective import CROSS_ENTROPY, ObjectiveModule, build_objectives
from lilliput.objectives.routes.denoising_sampler import predict
from lilliput.objectives.routes.diffusion_blocks import PORT, DiffusionBlocks, DiffusionBlocksModule
from lilliput.objectives.targets import MultiToken
from lilliput.objectives.terms import CrossEntropy, Term
from lilliput.optim.ema import NoEma
from lilliput.optim.normuon import NorMuon
from lilliput.optim.schedule import WarmupStableDecay
from lilliput.recipe import Recipe
from lilliput.recipes import odinnext_138m, odinnext_138m_best, slm_10m
from lilliput.shrink import shrink
from lilliput.train.loop import Trainer
from lilliput.train.machine import Machine
from lilliput.train.phase import Phase, Stage, tokens_per_position
from lilliput.train.spike_detection import NoGuard
from lilliput.train.validation import Measurement, heldout_headline, make_validator

MEASUREMENTS = 12
"""Of held-out text in a phase of a trial."""
POSITIONS = 524_288
"""Of held-out text, measured each time."""
WARMUP, DECAY = 0.05, 0.3
"""Shares of the steps of ordinary training."""
LAST = 0.8
"""Share of a phase that decays at most."""
AHEAD = MultiToken(count=2, weight=0.3, until=0.8)
WHOLE = (Stage(share=1.0, objective=NextToken()),)
SHRINKING = ((0.2, 4), (0.1, 2), (0.7, 1))


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all trials of a model share."""

    recipe: Recipe
    phase: Phase
    """Of which trials have all that is not said here."""
    optimizer: Callable[[float], NorMuon]
    """By learning rate."""
    rates: tuple[float, ...]
    """Tried for --tune seconds each; one is taken as it is."""
    seeds: tuple[int, ...]
    """Of the finals."""
    terms: tuple[Term, ...] = (CrossEntropy(),)
    calibration: int
    """Steps of the run that tells how long a step of each stage takes."""

    @property
    def rows(self) -> int:
        return self.phase.batch_tokens // self.phase.length


SETUPS = {
    "slm-10m": Setup(
        recipe=slm_10m.recipe,
        phase=replace(slm_10m.pretrain, batch_tokens=128 * slm_10m.pretrain.length),
        optimizer=lambda rate: NorMuon(lr=rate, adam_lr=rate),
        rates=(4e-3, 8e-3, 1.6e-2),  # the best one for this model is in the middle (`benchmarks/optimizer_race.py`)
        seeds=(0, 1),
        calibration=150,
    ),
    "odinnext-138m": Setup(
        recipe=odinnext_138m.recipe,
        phase=replace(odinnext_138m_best.pretrain, ema=NoEma()),  # over so few steps an average is one of the beginning
        optimizer=lambda rate: replace(odinnext_138m.optimizer, lr=rate, adam_lr=1.5 * rate),
        rates=(odinnext_138m.optimizer.lr,),
        seeds=(0,),
        terms=odinnext_138m.terms,
        calibration=36,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """A phase of an arm."""

    time: float = 1.0
    """Share of the time of the arm."""
    stages: tuple[Stage, ...] = WHOLE
    warmup: float = WARMUP
    decay: float = DECAY
    shallower: int = 1
    """The model has this part of the layers, and is stacked afterwards."""


def _bags(parts: tuple[tuple[float, int], ...], further: MultiToken | None = None) -> tuple[Part]:
    return (
        Part(stages=tuple(Stage(share=share, objective=NextToken(bag=bag, further=further)) for share, bag in parts)),
    )


def _blocks(time: float, route: DiffusionBlocks = DiffusionBlocks()) -> tuple[Part, Part]:
    denoising = (Stage(share=1.0, objective=NextToken(route=route)),)
    return (
        Part(time=time, stages=denoising, warmup=WARMUP * route.blocks, decay=0.0),
        Part(time=1 - time, decay=min(DECAY / (1 - time), LAST)),
    )


ARMS: dict[str, tuple[Part, ...]] = {
    "bag 1": (Part(),),
    "4-2-1": _bags(SHRINKING),
    "8-1": _bags(((0.3, 8), (0.7, 1))),
    "bag 1, ahead": _bags(((1.0, 1),), AHEAD),
    "4-2-1, ahead": _bags(SHRINKING, AHEAD),
    "stack": (Part(time=0.4, shallower=2), Part(time=0.6)),
    "blocks 25%": _blocks(0.25),
    "blocks 50%": _blocks(0.5),
    "blocks 80%": _blocks(0.8),
    "blocks 50%, port": _blocks(0.5, PORT),
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
    times: list[list[float]] = field(default_factory=list)
    """Seconds of each step, by phase."""
    before: int = 0
    """Tokens of the phases before."""
    last: float = 0.0

    def __enter__(self) -> "Curve":
        self.times.append([])
        self.last = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None: ...

    @property
    def seconds(self) -> float:
        """Of all steps so far."""
        return sum(steady(times) for times in self.times)

    def log_step(self, step: int, tokens: int, *_: object) -> None:
        now = time.perf_counter()  # the loop has just read the step's numbers from the device
        self.times[-1].append(now - self.last)
        self.last = now

    def log_validation(self, step: int, tokens: int, measured: Measurement, headline: str = "") -> None:
        read = self.before + tokens
        self.points.append(
            (self.seconds, read, read / self.available, statistics.mean(filter(None, measured.heldout.values())))
        )
        self.last = time.perf_counter()


def steady(times: Sequence[float]) -> float:
    """Return the seconds of steps together, those that compiled or captured a graph as a usual one."""
    return sum(min(time, 2 * statistics.median(times)) for time in times)


class Predicted:
    """Held-out tokens as something predicts them: measured like an objective, and how many are its likeliest."""

    def __init__(self, logits: Callable[[Batch], torch.Tensor]):
        self._logits, self.hits, self.count = logits, 0.0, 0.0

    def evaluate(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        logits, targets, weight = self._logits(batch).float(), batch.tokens[:, 1:], batch.weight[:, 1:]
        nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        self.hits += float(((logits.argmax(dim=-1) == targets) * weight).sum())
        self.count += float(weight.sum())
        return (nats * weight.flatten()).double().sum(), weight.sum()


class Race:
    """Trains trials on one device and the text of a folder."""

    def __init__(self, folder: Path, machine: Machine, setup: Setup, rows: int):
        self._files = {file.name: Shards(file) for file in sorted(folder.iterdir()) if file.is_dir()}
        self._machine, self._setup, self._rows = machine, setup, rows
        self._length, self._spec = setup.phase.length, setup.recipe.model.shape
        if machine.device == "cpu":
            self._spec = replace(shrink(setup.recipe).model.shape, vocab=self._spec.vocab)
        self._seconds: dict[tuple[tuple[Stage, ...], int], float] = {}

    def train(self, trial: Trial) -> dict[str, Any]:
        """Train a trial and return its curve."""
        parts, seed, sampler = ARMS[trial.arm], trial.seed, None
        curve = Curve(available=Mixture(weights=dict.fromkeys(self._files, 1.0)).open(self._files).tokens_available)
        model = self._model(parts[0].shallower, seed)
        for part in parts:
            if model.spec.layers < self._spec.layers // part.shallower:
                line = Lineage(model=model, tokenizer=None, average={})  # type: ignore[arg-type]
                model = Stack(times=2).grow(line, trial.seed).model
            seconds = trial.seconds - curve.seconds if part is parts[-1] else part.time * trial.seconds
            phase = self._phase(trial.rate, part, self._steps(part, seconds))
            route = getattr(self._run(model, phase, seed, curve), "route", None)
            if isinstance(route, DiffusionBlocksModule):
                sampler = self._predicted(lambda batch, route=route: _sampled(route, batch))
            curve.before, seed = curve.before + int(phase.tokens), seed + 100
        _, tokens, passes, end = curve.points[-1]
        print(f"{trial} ends at {end:.4f} bits per byte after {tokens:,} tokens, {passes:.2f} passes", flush=True)
        return asdict(trial) | {
            "bits_per_byte": end,
            "accuracy": self._predicted(lambda batch: _ordinary(model, batch))["accuracy"],
            "sampler": sampler,
            "tokens": tokens,
            "passes": passes,
            "steps": sum(map(len, curve.times)),
            "step_milliseconds": 1e3 * statistics.median(time for times in curve.times for time in times),
            "phases": [
                {"steps": len(times), "step_milliseconds": 1e3 * statistics.median(times), "seconds": steady(times)}
                for times in curve.times
            ],
            "seconds_of_steps": curve.seconds,
            "curve": curve.points,
        }

    def _model(self, shallower: int, seed: int) -> LanguageModel:
        return replace(self._spec, layers=self._spec.layers // shallower).build(seed).to(self._machine.device)

    def _steps(self, part: Part, seconds: float) -> int:
        """Return the steps that fit into some seconds, by those of a short run of the same stages, as long each."""
        key = (part.stages, part.shallower)
        if key not in self._seconds:
            curve, count = Curve(available=1), self._setup.calibration if self._machine.device == "cuda" else 20
            alike = tuple(replace(stage, share=1 / len(part.stages)) for stage in part.stages)
            phase = self._phase(self._setup.rates[0], replace(part, stages=alike), count)
            self._run(self._model(part.shallower, 0), phase, 0, curve, measures=False)
            each = _each(alike, curve.times[0])
            self._seconds[key] = sum(stage.share * one for stage, one in zip(part.stages, each, strict=True))
        return max(4, int(seconds / self._seconds[key]))

    def _phase(self, rate: float, part: Part, steps: int) -> Phase:
        stages = tuple(
            replace(stage, objective=replace(stage.objective, terms=self._setup.terms))  # type: ignore[type-var]
            for stage in part.stages
        )
        tokens = math.ceil(steps * self._rows * self._length * tokens_per_position(stages, self._length))
        return replace(
            self._setup.phase,
            tokens=Tokens(tokens),
            batch_tokens=self._rows * self._length,
            data=Mixture(weights=dict.fromkeys(self._files, 1.0)),
            stages=stages,
            optimizer=self._setup.optimizer(rate),
            schedule=WarmupStableDecay(warmup=Share(part.warmup), decay=Share(part.decay)),
            guard=NoGuard(),  # an arm that goes back, to its beginning here, would lose time that others have
            save_every=Steps(10**9),
            measure_every=Share(1 / MEASUREMENTS),
        )

    def _run(
        self, model: LanguageModel, phase: Phase, seed: int, curve: Curve, *, measures: bool = True
    ) -> ObjectiveModule:
        """Train a phase and return the objective of its last stage."""
        (ordinary,) = build_objectives([NextToken()], model, seed=0)
        validate = make_validator(self._files, self._length, self._machine, POSITIONS // len(self._files))

        def measure(_: ObjectiveModule, headline: str) -> dict[str, float | None]:
            return validate(ordinary, headline) if measures else {"none": math.nan}  # type: ignore[arg-type]

        with tempfile.TemporaryDirectory() as folder:
            reader = phase.data.open(self._files)
            trainer = Trainer(model, phase, reader, self._machine, folder=Path(folder), seed=seed, report=print)
            trainer.train(lambda _: curve, measure)  # type: ignore[arg-type, return-value]
            trainer.release()
        return trainer.trainable.objective(len(phase.stages) - 1)

    def _predicted(self, logits: Callable[[Batch], torch.Tensor]) -> dict[str, float]:
        """Return the accuracy of predicted tokens and their bits per byte, means over the files."""
        found, bits = [Predicted(logits) for _ in self._files], []
        for predicted, opened in zip(found, self._files.values(), strict=True):
            where = opened, self._length, self._machine, POSITIONS // len(self._files)
            bits.append(heldout_headline(predicted, CROSS_ENTROPY, *where))  # type: ignore[arg-type]
        accuracy = statistics.mean(one.hits / one.count for one in found)
        return {"accuracy": accuracy, "bits_per_byte": statistics.mean(bits)}


def _ordinary(model: LanguageModel, batch: Batch) -> torch.Tensor:
    """Return the logits of the tokens of a batch but the first."""
    x = model.embed(batch.tokens[:, :-1, None])
    return model.logits(model.forward_layers(x, document_ids=batch.document_ids[:, :-1]))


def _sampled(route: DiffusionBlocksModule, batch: Batch) -> torch.Tensor:
    """Return them as the denoising sampler makes them, in a step for each block; the same noise for each batch."""
    documents = {"document_ids": batch.document_ids[:, :-1], "target_document_ids": batch.document_ids[:, 1:]}
    noise = Noise(batch.tokens.device).begin_step(seed=0, step=0)
    return predict(route, batch.tokens[:, :-1], noise, **documents)


def _each(stages: tuple[Stage, ...], times: Sequence[float]) -> list[float]:
    """Return the seconds of a step of each stage, without the first half of it, which compiles."""
    ends = [round(len(times) * end) for end in accumulate(stage.share for stage in stages)]
    halves = [times[(begin + end) // 2 : end] for begin, end in pairwise([0, *ends])]
    return [steady(half) / len(half) for half in halves]


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
    options.add_argument("arms", nargs="*", metavar="ARM", help=f"of {', '.join(ARMS)}".replace("%", "%%"))
    options.add_argument("--encode", nargs="+", metavar="FILE")
    options.add_argument("--model", choices=SETUPS, default="slm-10m")
    options.add_argument("--tune", type=float, default=75.0, metavar="SECONDS")
    options.add_argument("--final", type=float, default=240.0, metavar="SECONDS", help="0 for none")
    options.add_argument(
        "--until", type=float, default=math.inf, metavar="SECONDS", help="begin no trial after so many"
    )
    options.add_argument("--known", nargs="+", type=Path, default=[], metavar="FILE.json")
    options.add_argument("--device", default="cuda")
    options.add_argument("--rows", type=int, help="of a step; by default those of the model's batch")
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    begun, setup = time.perf_counter(), SETUPS[chosen.model]
    rows = chosen.rows or setup.rows
    if chosen.encode:
        encode(chosen.encode, chosen.folder, setup.recipe.model.shape.vocab)
        return
    if unknown := set(chosen.arms) - set(ARMS):
        options.error(f"no such arm: {', '.join(sorted(unknown))}; one of {', '.join(ARMS)}")
    trials: list[dict[str, Any]] = [one for path in chosen.known for one in read_json(path)["trials"]]
    precision = "bf16" if chosen.device == "cuda" else "fp32"
    machine = Machine(device=chosen.device, precision=precision).resolved()
    machine.apply()
    race = Race(chosen.folder, machine, setup, rows)
    names = [one.name for one in fields(Trial)]

    def run(trial: Trial) -> bool:
        """Train what is not known yet; False once time is up."""
        if any(asdict(trial) == {name: one[name] for name in names} for one in trials):
            return True
        if time.perf_counter() - begun + trial.seconds > chosen.until:
            return False
        trials.append(race.train(trial))
        if chosen.out:
            known = {"environment": environment(), "model": chosen.model, "rows": rows}
            write_json(chosen.out, known | {"trials": trials})
        return True

    for arm in chosen.arms:
        rate = setup.rates[0]
        if len(setup.rates) > 1:
            if not all(run(Trial(arm=arm, rate=each, seconds=chosen.tune)) for each in setup.rates):
                break
            rate = best_rate(trials, arm, chosen.tune)
        if chosen.final:
            [run(Trial(arm=arm, rate=rate, seconds=chosen.final, seed=seed)) for seed in setup.seeds]
    print(table(trials, chosen.final))
    if torch.cuda.is_available():
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
