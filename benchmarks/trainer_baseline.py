"""How far does the same model come in the same minutes with transformers' Trainer, AdamW and torch.compile?

    lilliput data slm-10m-hopper --out RUN        the tokenizer and token files, once
    python benchmarks/trainer_baseline.py RUN [--seconds 360] [--tune 60] [--rates 1e-3 2e-3 4e-3] [--seeds 0]
                                          [--out FILE.json]

The recipe's model as Qwen3ForCausalLM in bf16 autocast, on the rows that the recipe's first phase reads, in steps of as
many positions: fused AdamW (betas 0.9 and 0.95, weight decay 0.1, clip 1.0), a cosine to a tenth after a warm-up of 2%,
one compiled graph, no gradient checkpointing. Each learning rate is tried for --tune seconds, the best one is trained
for --seconds. Steps are as many as fit, by the time of a step that a short run takes first; neither that run,
compilation nor measuring counts. Held-out bits per byte are those of the same rows of the same corpora, at twelve
points.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerators import Predicted, steady
from torch.utils.data import IterableDataset
from transformers import Qwen3ForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.data.batch import Batch, Cursor
from lilliput.objectives.objective import CROSS_ENTROPY
from lilliput.publish.hf_formats.qwen3 import Qwen3Format
from lilliput.run.run_data import RunData
from lilliput.train.machine import Machine
from lilliput.train.validation import heldout_headline

POINTS = 12
"""Measurements of a training."""
CALIBRATION = 60
POSITIONS = 131_072
"""Of held-out text of a corpus, measured each time."""
ROWS = 64
"""Rows that a worker reads at a time."""


class Rows(IterableDataset):
    """The rows of a phase, in order; each of several workers has every so many of them."""

    def __init__(self, run: Path, index: int, seed: int):
        self._run, self._index, self._seed = run, index, seed

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        data = RunData(self._run)
        phase, reader = data.recipe.phases[self._index], data.reader(self._index)
        worker = torch.utils.data.get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        cursor, block = Cursor(), 0
        while True:
            if block % count == number:
                batch, cursor = reader.read(cursor, ROWS, phase.length)
                for row in batch.tokens:
                    yield {"input_ids": row[: phase.length], "labels": row[: phase.length]}
            else:
                cursor = reader.skip(cursor, ROWS, phase.length)
            block += 1


class Clock(TrainerCallback):
    """Times steps and measures held-out text at some of them."""

    def __init__(self, measure: Any, steps: int, points: int):
        self._measure, self._due = measure, {round(steps * (number + 1) / points) for number in range(points)}
        self.times: list[float] = []
        self.points: list[tuple[float, float]] = []
        self._last = time.perf_counter()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._last = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter() - self._last)
        if state.global_step in self._due:
            self.points.append((steady(self.times), self._measure(model)))


class Baseline:
    """Trains the recipe's model with the Trainer."""

    def __init__(self, run: Path, device: str, rows: int | None):
        self._run, self._data = run, RunData(run)
        self._index = next(iter(self._data.recipe.phases))
        self._phase = self._data.recipe.phases[self._index]
        self._rows = rows or self._phase.batch_tokens // self._phase.length
        self._machine = Machine(device=device, precision="bf16" if device == "cuda" else "fp32").resolved()
        self._files = {name: self._data.tokens(name) for name in self._data.corpora}
        self._each: float | None = None

    def train(self, rate: float, seconds: float, seed: int, points: int = POINTS) -> dict[str, Any]:
        """Train for some seconds of steps and return the curve."""
        if self._each is None:
            times = self._run_trainer(rate, CALIBRATION if self._machine.device == "cuda" else 6, 0, 1).times
            self._each = statistics.median(times[len(times) // 2 :])
        steps = max(4, int(seconds / self._each))
        clock = self._run_trainer(rate, steps, seed, points)
        print(
            f"rate {rate:g}, {seconds:g} s, seed {seed}: {clock.points[-1][1]:.4f} bits per byte, {steps} steps",
            flush=True,
        )
        return {
            "rate": rate,
            "seconds": seconds,
            "seed": seed,
            "steps": steps,
            "step_milliseconds": 1e3 * statistics.median(clock.times),
            "bits_per_byte": clock.points[-1][1],
            "curve": clock.points,
        }

    def _run_trainer(self, rate: float, steps: int, seed: int, points: int) -> Clock:
        set_seed(seed)
        config = Qwen3Format(context=self._phase.length).config(self._data.recipe.model.shape)
        model = Qwen3ForCausalLM._from_config(Qwen3ForCausalLM.config_class(**config))
        clock = Clock(self._measured, steps, points)
        on_gpu = self._machine.device == "cuda"
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                max_steps=steps,
                per_device_train_batch_size=self._rows,
                learning_rate=rate,
                adam_beta1=0.9,
                adam_beta2=0.95,
                weight_decay=0.1,
                max_grad_norm=1.0,
                lr_scheduler_type="cosine_with_min_lr",
                lr_scheduler_kwargs={"min_lr_rate": 0.1},
                warmup_steps=max(1, steps // 50),
                optim="adamw_torch_fused" if on_gpu else "adamw_torch",
                bf16=on_gpu,
                torch_compile=on_gpu,
                tf32=on_gpu or None,
                use_cpu=not on_gpu,
                dataloader_num_workers=4 if on_gpu else 0,
                dataloader_pin_memory=on_gpu,
                logging_strategy="no",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                seed=seed,
            )
            dataset = Rows(self._run, self._index, seed)
            Trainer(model=model, args=arguments, train_dataset=dataset, callbacks=[clock]).train()
        return clock

    def _measured(self, model: Any) -> float:
        """Return held-out bits per byte, the mean over the corpora."""
        model.eval()

        def logits(batch: Batch) -> torch.Tensor:
            return model(input_ids=batch.tokens[:, :-1]).logits

        where = self._phase.length, self._machine, POSITIONS
        bits = [heldout_headline(Predicted(logits), CROSS_ENTROPY, one, *where) for one in self._files.values()]  # type: ignore[arg-type]
        model.train()
        return statistics.mean(bits)  # type: ignore[type-var]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("run", type=Path)
    options.add_argument("--seconds", type=float, default=360.0)
    options.add_argument("--tune", type=float, default=60.0)
    options.add_argument("--rates", type=float, nargs="+", default=[1e-3, 2e-3, 4e-3])
    options.add_argument("--seeds", type=int, nargs="+", default=[0])
    options.add_argument("--rows", type=int, help="of a step; by default as many as the recipe's")
    options.add_argument("--device", default="cuda")
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    baseline, trials = Baseline(chosen.run, chosen.device, chosen.rows), []

    def write() -> None:
        if chosen.out:
            write_json(chosen.out, {"environment": environment(), "trials": trials})

    for rate in chosen.rates:
        trials.append(baseline.train(rate, chosen.tune, 0, points=1))
        write()
    best = min(trials, key=lambda one: one["bits_per_byte"])["rate"]
    for seed in chosen.seeds:
        trials.append(baseline.train(best, chosen.seconds, seed))
        write()


if __name__ == "__main__":
    main()
