"""Which settings of a recipe are best in equal time on one GPU?

    lilliput data RECIPE --out RUN        its tokenizer and token files, once
    python benchmarks/equal_time.py RUN [VARIANT...] [--groups NAME...] [--seconds 75...] [--seeds 0]
        [--questions FOLDER] [--known FILE.json] [--until SECONDS] [--out FILE.json]

A variant is the recipe of the run with other values: a name, a colon, and fields as `--set` writes them with semicolons
between them; `phases.` stands for every phase. Quotes keep the shell out of it:

    "as it is:"  "rows 64: phases.batch_tokens=65536"  "how-to: timeline.decay.data.weights.howto=0.1"

A value that begins with `=` is that of another field: `timeline.decay.data==timeline.pretrain.data`. --groups takes the
variants of sections of `benchmarks/equal_time_variants.md`, which has some for each idea that is to be tried on
slm-10m-hopper.

The phases of the timeline are trained,
shortened in proportion so that their steps take --seconds together, by the time of a step that a short run of each
stage takes first; neither that run nor compilation counts. Held-out bits per byte are those of the last weights on each
corpus that the run has, and their mean; `average` is that of averaged weights, where the last phase has some, and
`mean of kept` that of the mean of its checkpoints, where it keeps several (`Phase.keep`).

With --questions, a folder of training splits (hellaswag.train.jsonl.xz, piqa.train, arc_easy.train and
arc_challenge.train: nothing that is scored), the first --items of each are asked, too: the accuracy by likelihood for
each byte, as acc_norm has it, and the bits for each byte of the right answers, which vary less.

Trials that the file of --known has are not made again, so that a comparison may take several sessions. Several
--seconds are trainings of their own, each with its whole schedule.
"""

import argparse
import json
import lzma
import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from typing import Any

from accelerators import Curve
from torch import Tensor

from lilliput.base.environment import environment
from lilliput.base.errors import LilliputError
from lilliput.base.field_overrides import override_all
from lilliput.base.files import hash_of, read_json, write_json
from lilliput.base.spec import to_plain
from lilliput.base.spec_text import write
from lilliput.base.units import Share, Steps, Tokens
from lilliput.generate.log_likelihood import Request, log_likelihoods
from lilliput.growth.average_weights import mean_of
from lilliput.model import LanguageModel, copy_weights
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.objective import ObjectiveModule, build_objectives
from lilliput.optim.ema import NoEma
from lilliput.optim.schedule import Constant
from lilliput.recipe import Recipe
from lilliput.run.run_data import RunData
from lilliput.train.checkpoint import Checkpoint, at_step, load, steps_in
from lilliput.train.loop import Trainer
from lilliput.train.machine import Machine
from lilliput.train.phase import KEPT_FOLDER, Phase, Stage
from lilliput.train.resuming import BEFORE_DECAY, CHECKPOINTS, resumed_state
from lilliput.train.spike_detection import NoGuard
from lilliput.train.validation import make_validator

CALIBRATION = 60
"""Steps of the run that tells how long a step takes; the second half counts."""
POSITIONS = 131_072
"""Of held-out text of a corpus, measured at the end."""
VARIANTS = Path(__file__).with_name("equal_time_variants.md")
TASKS = ("hellaswag", "piqa", "arc_easy", "arc_challenge")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A recipe with other values."""

    name: str
    fields: tuple[tuple[str, str], ...] = ()

    @classmethod
    def read(cls, text: str) -> "Variant":
        """Return what an argument says."""
        name, _, given = text.partition(":")
        pairs = [one.strip().split("=", 1) for one in given.split(";") if one.strip()]
        return cls(name=name.strip(), fields=tuple((path, value) for path, value in pairs))

    def of(self, recipe: Recipe) -> Recipe:
        """Return the recipe with its values."""
        changes = []
        for path, value in self.fields:
            if value.startswith("="):
                value = write(_field(recipe, value[1:]))
            first, _, rest = path.partition(".")
            names = [f"timeline.{index}.{rest}" for index in recipe.phases] if first == "phases" else [path]
            changes += [(name, value) for name in names]
        return override_all(recipe, changes)


def variants_of(groups: Sequence[str]) -> list[Variant]:
    """Return the variants of sections of the file, each of which is a line of a code block.

    Raises:
        LilliputError: there is no section of a name.
    """
    found: dict[str, list[Variant]] = {}
    for section in VARIANTS.read_text(encoding="utf-8").split("\n## ")[1:]:
        name, _, text = section.partition("\n")
        blocks = text.split("```")[1::2]
        lines = [line for block in blocks for line in block.splitlines()[1:] if line.strip()]
        found[name.strip()] = [Variant.read(line) for line in lines]
    if unknown := [group for group in groups if group not in found]:
        raise LilliputError(
            f"there is no section {', '.join(unknown)}", where=str(VARIANTS), hint=f"there are: {', '.join(found)}"
        )
    return [variant for group in groups for variant in found[group]]


def _field(spec: Any, path: str) -> Any:
    """Return the value at a path of names, of timelines and stages also indices."""
    for key in path.split("."):
        if isinstance(spec, tuple):
            spec = next((one for one in spec if getattr(one, "name", None) == key), None) or spec[int(key)]
        else:
            spec = spec[key] if isinstance(spec, Mapping) else getattr(spec, key)
    return spec


class Question(tuple[list[Request], list[int], int]):
    """Requests of the choices of a question, their bytes, and the index of the right one."""


class Trials:
    """Trains variants on the token files of a run."""

    def __init__(self, run: Path, machine: Machine, questions: Path | None, items: int):
        self._data, self._machine = RunData(run), machine
        self._files = {name: self._data.tokens(name) for name in self._data.corpora}
        self._seconds: dict[str, float] = {}
        self._questions = {}
        if questions is not None:
            tokenizer = self._data.tokenizer()
            encode = lambda text: tokenizer.encode(text).ids  # noqa: E731
            self._questions = {task: list(islice(_asked(questions, task, encode), items)) for task in TASKS}

    def train(self, variant: Variant, seconds: float, seed: int) -> dict[str, Any]:
        """Train a variant and return what it reaches."""
        begun = time.perf_counter()
        recipe = variant.of(self._data.recipe)
        phases = [recipe.timeline[index] for index in recipe.phases]
        assert all(isinstance(phase, Phase) for phase in phases)
        steps = [self._step_seconds(recipe, phase) for phase in phases]
        share = seconds / sum(phase.steps * each for phase, each in zip(phases, steps, strict=True))
        model = recipe.model.shape.build(seed).to(self._machine.device)
        curve = Curve(available=1)
        with tempfile.TemporaryDirectory() as folder:
            before: Phase | None = None
            for number, phase in enumerate(phases):
                short = replace(
                    phase,
                    tokens=Tokens(max(int(int(phase.tokens) * share), 2 * self._tokens_of_a_step(phase))),
                    guard=NoGuard(),  # one that goes back, to its beginning here, would lose time that others have
                    save_every=Steps(10**9),
                    measure_every=Share(1.0),
                )
                trainer = self._trainer(model, short, before, Path(folder), seed + 100 * number)
                average = trainer.train(lambda _: curve, lambda *_: {"none": math.nan})  # type: ignore[arg-type, return-value]
                trainer.release()
                before = short
            kept = self._kept(phases[-1].name, Path(folder))
        found = {
            "variant": variant.name,
            "fields": dict(variant.fields),
            "seconds": seconds,
            "seed": seed,
            "bits_per_byte": self._measured(model),
            "steps": [len(times) for times in curve.times],
            "step_milliseconds": [1e3 * statistics.median(times) for times in curve.times],
            "seconds_of_steps": curve.seconds,
            "seconds_in_all": time.perf_counter() - begun,
            "questions": self._answers(model),
        }
        if average:
            with trainer.average.swapped_in(trainer.trainable):
                found["average"] = self._measured(model)
        if kept:
            copy_weights(model, kept)
            found["mean of kept"] = {"bits_per_byte": self._measured(model), "questions": self._answers(model)}
        found["mean"] = statistics.mean(found["bits_per_byte"].values())
        print(
            f"{variant.name} ({seconds:g} s, seed {seed}): {found['mean']:.4f} bits per byte; "
            f"{', '.join(map(str, found['steps']))} steps of "
            f"{', '.join(f'{one:.1f}' for one in found['step_milliseconds'])} ms; {_short(found)}",
            flush=True,
        )
        if kept:
            mean = statistics.mean(found["mean of kept"]["bits_per_byte"].values())
            print(f"  mean of kept: {mean:.4f}; {_short(found['mean of kept'])}", flush=True)
        return found

    @staticmethod
    def _kept(name: str, folder: Path) -> dict[str, Tensor]:
        """The mean of the weights that the last phase kept; nothing where it kept at most one."""
        kept = folder / name / KEPT_FOLDER
        weights = [load(at_step(kept, step)).tensors["weights"] for step in steps_in(kept)]
        return mean_of(weights, (), "Phase.keep") if len(weights) > 1 else {}

    def _trainer(self, model: LanguageModel, phase: Phase, before: Phase | None, folder: Path, seed: int) -> Trainer:
        def resumed() -> Checkpoint:
            assert before is not None
            return resumed_state(phase, before, folder / before.name, print)

        return Trainer(
            model,
            phase,
            phase.data.open(self._files),
            self._machine,
            folder=folder / phase.name / CHECKPOINTS,
            before_decay=folder / phase.name / BEFORE_DECAY,
            kept=folder / phase.name / KEPT_FOLDER if phase.keep else None,
            seed=seed,
            report=print,
            begin=resumed if phase.resumes is not None else None,
        )

    def _tokens_of_a_step(self, phase: Phase) -> int:
        return math.ceil(int(phase.tokens) / phase.steps)

    def _step_seconds(self, recipe: Recipe, phase: Phase) -> float:
        """Return the mean time of a step over the stages of a phase, by those of short runs."""
        return sum(stage.share * self._stage_seconds(recipe, phase, stage) for stage in phase.stages)

    def _stage_seconds(self, recipe: Recipe, phase: Phase, stage: Stage) -> float:
        """The same of a stage; of whatever takes as long, it is measured once."""
        optimizer, shape = to_plain(phase.optimizer), {**to_plain(recipe.model.shape), "init": None}
        key = hash_of([shape, to_plain(replace(stage, share=1.0)), optimizer["type"], phase.batch_tokens, phase.length])
        if key not in self._seconds:
            count = CALIBRATION if self._machine.device == "cuda" else 8
            whole = replace(phase, stages=(replace(stage, share=1.0),), schedule=Constant())
            short = replace(
                whole,
                tokens=Tokens(count * self._tokens_of_a_step(whole)),
                resumes=None,
                ema=NoEma(),
                keep=(),
                save_every=Steps(10**9),
                measure_every=Share(1.0),
            )
            curve, model = Curve(available=1), recipe.model.shape.build(0).to(self._machine.device)
            with tempfile.TemporaryDirectory() as folder:
                trainer = self._trainer(model, short, None, Path(folder), 0)
                trainer.train(lambda _: curve, lambda *_: {"none": math.nan})  # type: ignore[arg-type, return-value]
                trainer.release()
            self._seconds[key] = statistics.median(curve.times[0][len(curve.times[0]) // 2 :])
        return self._seconds[key]

    def _measured(self, model: LanguageModel) -> dict[str, float | None]:
        objective: ObjectiveModule
        (objective,) = build_objectives([NextToken()], model, seed=0)
        length = max(self._data.recipe.timeline[index].length for index in self._data.recipe.phases)  # type: ignore[union-attr]
        return make_validator(self._files, length, self._machine, POSITIONS)(objective, "cross_entropy")

    def _answers(self, model: LanguageModel) -> dict[str, dict[str, float]]:
        found = {}
        for task, questions in self._questions.items():
            requests = [request for one in questions for request in one[0]]
            likelihoods = iter(log_likelihoods(model.eval(), requests, window=1_024))
            right, bits, size = 0, 0.0, 0
            for choices, sizes, gold in questions:
                own = [next(likelihoods) for _ in choices]
                each = [one / count for one, count in zip(own, sizes, strict=True)]
                right += each.index(max(each)) == gold
                bits, size = bits - own[gold] / math.log(2), size + sizes[gold]
            share = right / len(questions)
            error = math.sqrt(share * (1 - share) / len(questions))
            found[task] = {"accuracy": share, "standard_error": error, "bits_per_byte": bits / size}
        model.train()
        return found


def _asked(folder: Path, task: str, encode: Any) -> Iterator[Question]:
    """Yield questions of a training split in the words of lm-evaluation-harness."""
    with lzma.open(folder / f"{task}.train.jsonl.xz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if task.startswith("arc"):
                context = f"Question: {row['question']}\nAnswer:"
                choices, gold = row["choices"]["text"], row["choices"]["label"].index(row["answerKey"])
            elif task == "piqa":
                context, choices, gold = f"Question: {row['goal']}\nAnswer:", row["choices"], row["gold"]
            else:
                context, choices, gold = row["query"].split("\nChoose the best")[0], row["choices"], row["gold"]
            begin = encode(context)
            texts = [f" {choice.strip()}" for choice in choices]
            requests = [([0, *begin], encode(text)) for text in texts]
            yield Question((requests, [len(text.encode()) for text in texts], int(gold)))


def _short(found: dict[str, Any]) -> str:
    parts = [f"{name} {value:.4f}" for name, value in found["bits_per_byte"].items()]
    parts += [
        f"{name} {100 * one['accuracy']:.1f}%, {one['bits_per_byte']:.4f}" for name, one in found["questions"].items()
    ]
    return ", ".join(parts)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("run", type=Path)
    options.add_argument("variants", nargs="*", metavar="VARIANT")
    options.add_argument("--groups", nargs="+", default=[], metavar="NAME")
    options.add_argument("--seconds", type=float, nargs="+", default=[75.0])
    options.add_argument("--seeds", type=int, nargs="+", default=[0])
    options.add_argument("--questions", type=Path, metavar="FOLDER")
    options.add_argument("--items", type=int, default=2_000)
    options.add_argument(
        "--until", type=float, default=math.inf, metavar="SECONDS", help="begin no trial after so many"
    )
    options.add_argument("--known", type=Path)
    options.add_argument("--device", default="cuda")
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    begun = time.perf_counter()
    found: list[dict[str, Any]] = read_json(chosen.known)["trials"] if chosen.known else []
    precision = "bf16" if chosen.device == "cuda" else "fp32"
    machine = Machine(device=chosen.device, precision=precision).resolved()
    machine.apply()
    trials = Trials(chosen.run, machine, chosen.questions, chosen.items)
    variants = [*map(Variant.read, chosen.variants), *variants_of(chosen.groups)]
    for seed, seconds, variant in product(chosen.seeds, chosen.seconds, variants):
        key = {"variant": variant.name, "fields": dict(variant.fields), "seconds": seconds, "seed": seed}
        if any(key == {name: one[name] for name in key} for one in found):
            continue
        if time.perf_counter() - begun + seconds > chosen.until:
            print(f"not run: {variant.name}, {seconds:g} s, seed {seed}")
            continue
        found.append(trials.train(variant, seconds, seed))
        if chosen.out:
            write_json(chosen.out, {"environment": environment(), "trials": found})


if __name__ == "__main__":
    main()
