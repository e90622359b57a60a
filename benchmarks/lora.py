"""Is LoRA better than training all weights when a model of ten million parameters is tuned on conversations?

    python benchmarks/lora.py FOLDER --texts FILE... --chats FILE... --pairs FILE... [--steps 300] [--models gqa]
        [--known FILE.json] [--until SECONDS] [--small] [--device DEVICE] [--out FILE.json]

In the FOLDER of `benchmarks/post_training.py`, and on its data: the pretrained model, which is trained if it is not
there, is opened by transformers and tuned in one plain loop: all weights, or LoRA of two ranks on every linear layer
but the head (PEFT, alpha twice the rank). Rows, their order, the loss mask, steps, AdamW without weight decay, clip
1.0, a short warm-up and a linear decay are the same; bf16 autocast on a GPU, fp32 on a CPU. Each way is tried at three
learning rates with one seed, and its best rate again with another seed, which changes the order of the rows and LoRA's
first weights.

The tokens of chats are new to the model: their rows are the mean of all others and noise. Beside LoRA only these rows
of the embedding and of the head, which is the same matrix, are trained (`trainable_token_indices`): `modules_to_save`
would train the whole matrix, a fifth of this model, and untie the head.

Bits per byte of held-out answers and texts are those of Lilliput on the merged weights, after it has computed the same
loss with them as transformers. LoRA helps if its best mean is below that of all weights by more than seeds spread.
FILE.md has the tables and that verdict.

PEFT wraps the linear layers of an exported HGRN2 as they are: `--models gqa,hgrn2` compares both, but the plain scan of
its remote code takes longer. Trainings that the file of --known has are not repeated, and with --until none begins
after so many seconds, so that a comparison may take several sessions. Needs `peft`.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

import peft
import torch
import torch.nn.functional as F
from post_training import LOST, Workplace, heldout, heldout_texts, options, recipe_of, text_bits, trained_base
from post_training_page import ANSWERS, TEXTS
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from lilliput.base.environment import environment
from lilliput.base.errors import RunError
from lilliput.base.files import read_json, sha256, write_json, write_text
from lilliput.base.safetensors_headers import WEIGHTS_FILE
from lilliput.data.batch import Batch, Cursor
from lilliput.data.chat_rows import ChatData, PackedChats, write_chats
from lilliput.data.split import Split
from lilliput.evals.answer_bits import answer_bits
from lilliput.model import copy_weights
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.objective import build_objectives
from lilliput.publish.load import load
from lilliput.publish.weights import read_weights
from lilliput.tokenizer.chatml import CHATML

WARMUP = 0.05
"""Share of the steps."""
UNTIMED = 0.1
"""Share of the steps, the first ones, that are not timed: they find kernels and memory."""
TOLERANCE = 2e-4
"""Relative difference of the losses of transformers and of Lilliput that rounding may make: 4e-8 on a CPU. It is 2.5e-4
between packed conversations of the toy that see each other and those that do not."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of tuning, and its learning rates."""

    rank: int | None = None
    """Of LoRA; None trains all weights."""
    rates: tuple[float, float, float]
    """Peaks of the learning rate, rising."""


ALL = "all weights"
WAYS = {
    ALL: Way(rates=(3e-4, 1e-3, 3e-3)),
    "LoRA r=16": Way(rank=16, rates=(1e-3, 3e-3, 1e-2)),
    "LoRA r=64": Way(rank=64, rates=(1e-3, 3e-3, 1e-2)),
}
SEEDS = (0, 1)
"""The first one is that of all rates, the others are those of the best."""
STEPS, SMALL_STEPS = 300, 12


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training."""

    model: str
    way: str
    rate: float
    seed: int
    steps: int


def main() -> None:
    arguments = options(__doc__)
    arguments.set_defaults(models="gqa")
    arguments.add_argument("--steps", type=int, help=f"of a training; {STEPS} by default, {SMALL_STEPS} with --small")
    arguments.add_argument("--known", type=Path)
    arguments.add_argument("--until", type=float, default=math.inf, metavar="SECONDS")
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    disable_progress_bar()
    comparison = Comparison(given)
    for name in comparison.work.models:
        if not comparison.train(name):
            break
    comparison.save()
    print(page(comparison.result()))


class Comparison:
    """The trainings that are known, and those that are not yet."""

    def __init__(self, given: argparse.Namespace):
        self.work, self._until, self._began = Workplace(given), given.until, time.perf_counter()
        self._steps = given.steps or (SMALL_STEPS if given.small else STEPS)
        self._out = given.out or self.work.folder / "lora.json"
        known = read_json(given.known) if given.known else {"models": {}, "trials": []}
        self.models: dict[str, Any] = known["models"]
        self.trials: list[dict[str, Any]] = known["trials"]
        self._known = given.known

    def train(self, name: str) -> bool:
        """Train a model in every way; False once time is up."""
        tuning = Tuning(self.work, name)
        before = self.models.setdefault(name, {"origin": tuning.origin})
        if before["origin"] != tuning.origin:
            raise RunError(
                f"the trainings of {name} began with other weights or read other rows than those of this folder",
                where=str(self._known),
                hint="leave out --known, or give the folder that they were made in",
            )
        if "base" not in before:
            before |= {"parameters": tuning.parameters, "base": tuning.judged(None)}
        for way, seed in product(WAYS, SEEDS):
            best = best_rate(of_way(self.trials, name, way, self._steps))
            for rate in WAYS[way].rates if seed == SEEDS[0] else [best] if best else []:
                trial = Trial(model=name, way=way, rate=rate, seed=seed, steps=self._steps)
                if not self._is_known(trial):
                    if time.perf_counter() - self._began > self._until:
                        return False
                    self.trials.append(asdict(trial) | tuning.train(trial))
                    self.save()
        return True

    def _is_known(self, trial: Trial) -> bool:
        names = [one.name for one in fields(Trial)]
        return any(asdict(trial) == {name: one[name] for name in names} for one in self.trials)

    def result(self) -> dict[str, Any]:
        result = {"models": self.models, "trials": self.trials, "steps": self._steps, "peft": peft.__version__}
        result |= {"verdicts": {name: verdict(result, name) for name in self.models}}
        return result | self.work.about() | {"environment": environment()}

    def save(self) -> None:
        """Write what is known so far."""
        result = self.result()
        write_json(self._out, result)
        write_text(self._out.with_suffix(".md"), page(result))


class Tuning:
    """Trains a pretrained model on the conversations."""

    def __init__(self, work: Workplace, name: str):
        self._work, self._device = work, work.device
        self._rows_of_step, self._length = work.settings.tuning_rows, work.settings.length + 1
        self._base = trained_base(work, name, recipe_of(work, name, work.folder / "teacher"))
        self._loaded = load(self._base)
        self._loaded.model.to(self._device)
        self.parameters = self._loaded.model.parameter_counts()["total"]
        self._texts, self._heldout = heldout_texts(work.folder / name, work.settings), heldout(work.data)
        self._rows = self._packed(work.folder / "lora" / name)
        self.origin = {"weights": sha256(self._base / WEIGHTS_FILE), "rows": self._rows.index["sha256"]}

    def _packed(self, folder: Path) -> PackedChats:
        if not folder.is_dir():
            with self._work.stage("rows of conversations"):
                write_chats(self._work.chats, self._loaded.tokenizer, Split(share=0.0), folder, self._length)
        return PackedChats(folder)

    def train(self, trial: Trial) -> dict[str, Any]:
        """Train once, and return what it has cost and brought."""
        on_cuda, way = self._device.startswith("cuda"), WAYS[trial.way]
        if on_cuda:
            torch.cuda.reset_peak_memory_stats()
        torch.manual_seed(trial.seed)  # of LoRA's first weights
        model = self._opened(way).to(self._device)
        trained = [one for one in model.parameters() if one.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=trial.rate, betas=(0.9, 0.95), weight_decay=0.0, fused=on_cuda)
        reader = ChatData(corpus="chats", seed=trial.seed, lost=LOST).open({"chats": self._rows})
        cursor, losses, untimed, began = Cursor(), [], int(UNTIMED * trial.steps), 0.0
        for step in range(trial.steps):
            if step == untimed:
                began = self._now()
            for group in optimizer.param_groups:
                group["lr"] = trial.rate * share_of_peak(step, trial.steps)
            batch, cursor = reader.read(cursor, self._rows_of_step, self._length)
            with torch.autocast(torch.device(self._device).type, dtype=torch.bfloat16, enabled=on_cuda):
                loss = loss_of(model, batch.to(self._device))
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
        cost = {
            "trained_parameters": sum(one.numel() for one in trained),
            "step_milliseconds": 1e3 * (self._now() - began) / (trial.steps - untimed),
            "peak_bytes": torch.cuda.max_memory_allocated() if on_cuda else None,
            "passes": cursor.of("chats") / self._rows.count("train"),
            "loss": float(torch.stack(losses[-max(1, trial.steps // 10) :]).mean()),
        }
        told = self.judged(model) if math.isfinite(cost["loss"]) else dict.fromkeys(("answers", "texts", "difference"))
        print(f"{trial}: {told['answers'] or math.nan:.4f} bits per byte of answers", flush=True)
        return cost | told

    def _opened(self, way: Way) -> nn.Module:
        model = AutoModelForCausalLM.from_pretrained(self._base, dtype=torch.float32, trust_remote_code=True).train()
        if way.rank is None:
            return model
        config = peft.LoraConfig(
            task_type="CAUSAL_LM",
            r=way.rank,
            lora_alpha=2 * way.rank,
            target_modules="all-linear",
            trainable_token_indices=[self._loaded.tokenizer.token_to_id(token) for token in CHATML],
        )
        return peft.get_peft_model(model, config)

    def _now(self) -> float:
        if self._device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()

    def judged(self, model: nn.Module | None) -> dict[str, float]:
        """Measure bits per byte of held-out answers and texts; without a model, those of the base.

        Raises:
            RunError: transformers and Lilliput do not compute the same loss.
        """
        opened = self._opened(WAYS[ALL]).to(self._device) if model is None else model
        batch = self._rows.take("train", range(min(self._rows_of_step, self._rows.count("train")))).to(self._device)
        with torch.no_grad():
            theirs = float(loss_of(opened.eval(), batch))
        merged = opened.merge_and_unload() if isinstance(opened, peft.PeftModel) else opened
        loaded = self._loaded
        with tempfile.TemporaryDirectory() as folder:
            merged.save_pretrained(folder)
            copy_weights(loaded.model, read_weights(Path(folder), loaded.model.spec, loaded.layout).state_dict())
        (objective,) = build_objectives([NextToken()], loaded.model, seed=0)
        with torch.no_grad():
            total, weight = objective.evaluate(batch)
        ours = float(total / weight)
        if abs(theirs - ours) > TOLERANCE * theirs:
            raise RunError(
                f"the loss of the merged weights is {ours:.6f} here and {theirs:.6f} with transformers",
                where=str(self._base),
                hint="compare the versions of transformers and PEFT with those of the last result",
            )
        answers = answer_bits(loaded.model, loaded.tokenizer, self._heldout, context=loaded.context)
        pairs = {"answers": answers, "texts": text_bits(loaded, self._texts)}
        found = {name: sum(one[0] for one in each) / sum(one[1] for one in each) for name, each in pairs.items()}
        return found | {"difference": abs(theirs - ours) / theirs}


def share_of_peak(step: int, steps: int) -> float:
    """Return the share of the peak that the learning rate has in a step: a linear rise, and a linear decay to zero."""
    warmup = max(1, round(WARMUP * steps))
    return min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean cross-entropy of a batch's targets; texts of a row do not see each other."""
    positions = positions_of(batch.document_ids[:, :-1])
    logits = model(input_ids=batch.tokens[:, :-1], position_ids=positions, use_cache=False).logits
    nats = F.cross_entropy(logits.float().flatten(0, 1), batch.tokens[:, 1:].flatten(), reduction="none")
    weight = batch.weight[:, 1:].flatten()
    return (nats * weight).sum() / weight.sum()


def positions_of(document_ids: Tensor) -> Tensor:
    """Return positions [B, T] that begin again with each document, by which transformers tells packed ones apart."""
    places = torch.arange(document_ids.shape[1], device=document_ids.device).expand_as(document_ids)
    begins = document_ids.diff(dim=1, prepend=document_ids[:, :1] - 1) != 0
    return places - torch.where(begins, places, 0).cummax(dim=1).values


def of_way(trials: Sequence[Mapping[str, Any]], model: str, way: str, steps: int) -> list[Mapping[str, Any]]:
    return [one for one in trials if (one["model"], one["way"], one["steps"]) == (model, way, steps)]


def best_rate(trials: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the rate of the first seed's best training; None if there is none that did not diverge."""
    ended = [one for one in trials if one["seed"] == SEEDS[0] and one["answers"] is not None]
    return min(ended, key=lambda one: one["answers"])["rate"] if ended else None


def finals(result: Mapping[str, Any], model: str) -> dict[str, list[Mapping[str, Any]]]:
    """Return the trainings of each way at its best rate, one for each seed."""
    found = {}
    for way in WAYS:
        trials = of_way(result["trials"], model, way, result["steps"])
        best = best_rate(trials)
        found[way] = [one for one in trials if one["rate"] == best and one["answers"] is not None]
    return found


def spread(trials: Sequence[Mapping[str, Any]]) -> float:
    """Return the distance between the best and the worst seed."""
    values = [one["answers"] for one in trials]
    return max(values) - min(values)


def verdict(result: Mapping[str, Any], model: str) -> str:
    """Tell whether LoRA helps, by the rule in the docstring of this file."""
    ways = finals(result, model)
    if lacking := [way for way, trials in ways.items() if len(trials) < len(SEEDS)]:
        return f"it cannot be told: {', '.join(lacking)} did not end with every seed (not trained yet, or diverged)"
    means = {way: statistics.mean(one["answers"] for one in trials) for way, trials in ways.items()}
    best = min((way for way in WAYS if way != ALL), key=lambda way: means[way])
    gain, margin = means[ALL] - means[best], max(spread(trials) for trials in ways.values())
    texts = {way: statistics.mean(one["texts"] for one in ways[way]) for way in (best, ALL)}
    return (
        f"LoRA {'helps' if gain > margin else 'does not help'}: {best} ends at {means[best]:.4f} bits per byte of "
        f"held-out answers, all weights at {means[ALL]:.4f}; seeds spread by up to {margin:.4f}; held-out texts end at "
        f"{texts[best]:.4f} and {texts[ALL]:.4f}, and begin at {result['models'][model]['base']['texts']:.4f}"
    )


def page(result: Mapping[str, Any]) -> str:
    lines = ["# LoRA beside training all weights (`benchmarks/lora.py`)", ""]
    for name, model in result["models"].items():
        lines += [f"## {name}, {model['parameters']:,} parameters", "", f"**Verdict: {result['verdicts'][name]}.**", ""]
        lines += [*finals_table(result, name), "", *edges(result, name), "", "Every training:", ""]
        lines += [*trials_table(result, name), ""]
    return "\n".join(lines)


def finals_table(result: Mapping[str, Any], model: str) -> list[str]:
    """Return a row for the base, and one for each way at its best rate: means over the seeds."""
    lines = [f"| trained | rate | parameters | {ANSWERS} | spread of seeds | {TEXTS} | ms a step | peak GiB |"]
    lines += ["|---|" + "--:|" * 7]
    base = result["models"][model]["base"]
    lines += [f"| nothing: the base | | | {base['answers']:.4f} | | {base['texts']:.4f} | | |"]
    for way, trials in finals(result, model).items():
        if trials:
            answers, texts, each = (
                statistics.mean(one[key] for one in trials) for key in ("answers", "texts", "step_milliseconds")
            )
            lines.append(
                f"| {way} | {trials[0]['rate']:g} | {trials[0]['trained_parameters']:,} | {answers:.4f} "
                f"| {f'{spread(trials):.4f}' if len(trials) > 1 else 'one seed'} | {texts:.4f} | {each:.1f} "
                f"| {gibibytes(trials)} |"
            )
    return lines


def gibibytes(trials: Sequence[Mapping[str, Any]]) -> str:
    """Return the peak of memory; nothing on a CPU, where it is not measured."""
    peaks = [one["peak_bytes"] for one in trials if one["peak_bytes"] is not None]
    return f"{max(peaks) / 2**30:.2f}" if peaks else ""


def edges(result: Mapping[str, Any], model: str) -> list[str]:
    """Name the ways that are best at an end of their rates, beyond which they might be better."""
    found = []
    for way, trials in finals(result, model).items():
        rates = WAYS[way].rates
        if trials and trials[0]["rate"] in (rates[0], rates[-1]):
            end = "lowest" if trials[0]["rate"] == rates[0] else "highest"
            found.append(f"- {way}: the best rate is the {end} of those tried; one beyond it might be better.")
    return found


def trials_table(result: Mapping[str, Any], model: str) -> list[str]:
    lines = [f"| trained | rate | seed | steps | passes | training loss | {ANSWERS} | {TEXTS} | ms a step |"]
    lines += ["|---|" + "--:|" * 8]
    for one in result["trials"]:
        if one["model"] == model:
            answers, texts = ("diverged" if one[key] is None else f"{one[key]:.4f}" for key in ("answers", "texts"))
            lines.append(
                f"| {one['way']} | {one['rate']:g} | {one['seed']} | {one['steps']:,} | {one['passes']:.2f} "
                f"| {one['loss']:.4f} | {answers} | {texts} | {one['step_milliseconds']:.1f} |"
            )
    return lines


if __name__ == "__main__":
    main()
