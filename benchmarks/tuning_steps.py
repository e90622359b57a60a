"""What do steps on conversations and on pairs cost, eager and as CUDA graphs?

    python benchmarks/tuning_steps.py FOLDER --texts FILE... --chats FILE... --pairs FILE...
        [--steps 60] [--models gqa,hgrn2] [--small] [--device DEVICE] [--out FILE.json]

In the FOLDER of `benchmarks/post_training.py`, with its models and its data, packed into rows: a step of pretraining on
random tokens, which are all targets, one on conversations and one on pairs, with as many positions. Each is taken
uncompiled, compiled by layers, and as graphs, once with the rule that steps with many positions without targets run
eagerly (`CapturedForwardBackward.FEW`), and once as graphs whatever the positions are. The median of the second half of
the steps; beside it the share of positions that are targets, and that are text and no filling. What is measured is not
measured again, so that a comparison may take several commands.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from post_training import LOST, PAIR_ROWS, Settings, Workplace, options, tuned

from lilliput.base.environment import environment
from lilliput.base.files import read_json, write_json, write_text
from lilliput.base.units import Share, Steps, Tokens
from lilliput.data.chat_rows import ChatData, PackedChats, write_chats
from lilliput.data.pair_data import PairData
from lilliput.data.pair_rows import PackedPairs, write_pairs
from lilliput.data.split import Split
from lilliput.model import ModelSpec
from lilliput.objectives.dpo import DPO
from lilliput.optim.schedule import Constant
from lilliput.plan.synthetic_data import RandomRows
from lilliput.tokenizer.bpe import BPE, load_tokenizer, save_tokenizer
from lilliput.tokenizer.chatml import add_chatml
from lilliput.train import cuda_graphs
from lilliput.train.loop import Trainer
from lilliput.train.machine import Machine
from lilliput.train.phase import Phase, Stage

COMPILE = {"eager": "off", "compiled": "blocks", "graphs": "graphs", "graphs of all positions": "graphs"}
"""Values of `Machine.compile` by what is measured."""
FEW = {"graphs of all positions": 1.0}
"""Shares of positions without targets up to which a graph computes them, where it is not as it comes."""


def main() -> None:
    arguments = options(__doc__)
    arguments.add_argument("--steps", type=int, default=60)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    work = Workplace(given)
    chats, pairs = packed(work)
    found = {name: measured(work, name, chats, pairs, given.steps) for name in work.models}
    result = {"models": found, "rows": {"chats": about(chats), "pairs": about(pairs)}} | work.about()
    result |= {"environment": environment()}
    write_json(out := given.out or work.folder / "steps.json", result)
    page = ["# Steps on conversations and pairs (`benchmarks/tuning_steps.py`)", "", *table(result), ""]
    write_text(out.with_suffix(".md"), "\n".join(page))
    print("\n".join(page))


def packed(work: Workplace) -> tuple[PackedChats, PackedPairs]:
    """The conversations and pairs in rows of the settings' length, with a tokenizer that is learned from the texts."""
    folder, s = work.folder / "rows", work.settings
    if not (folder / "tokenizer").is_dir():
        with work.stage("rows: tokenizer"):
            texts = (document.text for document in work.texts.documents())
            sample = BPE(vocab=s.vocab, at_most=True, sample_bytes=10_000_000)
            save_tokenizer(add_chatml(sample.train(first(texts, 10_000_000))), folder / "tokenizer")
    tokenizer = load_tokenizer(folder / "tokenizer")
    for name, write, corpus, rows in (
        ("chats", write_chats, work.chats, 1),
        ("pairs", write_pairs, work.pairs, PAIR_ROWS),
    ):
        if not (folder / name).is_dir():
            with work.stage(f"rows: {name}"):
                write(corpus, tokenizer, Split(share=0.0), folder / name, rows * s.length + 1)
    pairs = PackedPairs(folder / "pairs")
    zeros = np.zeros((pairs.count("train"), pairs.pairs_per_row, 2), dtype=np.float32)
    return PackedChats(folder / "chats"), pairs.with_reference({"train": zeros, "heldout": zeros[:0]})


def first(texts: Iterator[str], characters: int) -> Iterator[str]:
    for text in texts:
        yield text
        characters -= len(text)
        if characters < 0:
            return


def about(rows: PackedChats | PackedPairs) -> dict[str, float]:
    """The number of rows, and shares of their positions."""
    side = rows.index["sides"]["train"]
    positions = side["rows"] * rows.length
    return {"rows": side["rows"], "targets": side["targets"] / positions, "text": side["tokens"] / positions}


def measured(work: Workplace, name: str, chats: PackedChats, pairs: PackedPairs, steps: int) -> dict[str, Any]:
    """Milliseconds of a step by what it learns from, and by how it is taken."""
    s = work.settings
    vocab = -(-chats.index["vocab"] // 64) * 64
    spec = replace(s.models[name], vocab=vocab)
    pair_data = PairData(corpus="pairs", reference="reference", lost=LOST)
    phases: dict[str, tuple[Phase, Any]] = {
        "random tokens": (timed("random", ChatData(corpus="chats"), steps, s), RandomRows(vocab)),
        "conversations": (
            timed("sft", ChatData(corpus="chats"), steps, s),
            ChatData(corpus="chats").open({"chats": chats}),
        ),
        "pairs": (
            replace(
                timed("dpo", pair_data, steps, s),
                length=PAIR_ROWS * s.length,
                stages=(Stage(share=1.0, objective=DPO(beta=0.5)),),
            ),
            pair_data.open({"pairs": pairs}),
        ),
    }
    found: dict[str, Any] = {}
    for learned, (phase, reader) in phases.items():
        for how, compiles in COMPILE.items() if work.device.startswith("cuda") else (("eager", "off"),):
            file = work.folder / "steps" / name / f"{learned}, {how}, {steps}.json".replace(" ", "-")
            if not file.is_file():
                with work.stage(f"{name}: steps on {learned}, {how}"):
                    machine = replace(work.machine, compile=compiles).resolved()
                    file.parent.mkdir(parents=True, exist_ok=True)
                    write_json(file, with_few(FEW.get(how), partial(step_time, spec, phase, reader, machine, steps)))
            found.setdefault(learned, {})[how] = read_json(file)
    return found


def with_few(share: float | None, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A measurement with another share up to which graphs compute positions without targets; an error, if it fails."""
    captured = cuda_graphs.CapturedForwardBackward
    before, captured.FEW = captured.FEW, captured.FEW if share is None else share
    try:
        return measure()
    except RuntimeError as error:  # of what cannot be captured
        return {"error": str(error)[:500]}
    finally:
        captured.FEW = before


def timed(name: str, data: Any, steps: int, s: Settings) -> Phase:
    tokens = Tokens(steps * s.tuning_rows * s.length)
    return replace(
        tuned(name, tokens, 1e-4, data, s),
        schedule=Constant(warmup=Share(1.0)),
        save_every=Steps(10**9),
        measure_every=Steps(10**9),
    )


def step_time(spec: ModelSpec, phase: Phase, reader: Any, machine: Machine, steps: int) -> dict[str, Any]:
    torch.compiler.reset()
    model = spec.build(seed=0).to(machine.device)
    watch = Ends()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(model, phase, reader, machine, folder=Path(folder), seed=0, report=print)
        trainer.train(lambda _: watch, lambda *_: {})  # type: ignore[arg-type]
    seconds = [later - sooner for sooner, later in pairwise(watch.ends)][len(watch.ends) // 2 :]
    step = statistics.median(seconds)
    return {
        "milliseconds": 1e3 * step,
        "positions_per_second": phase.batch_tokens / step,
        "spread": (max(seconds) - min(seconds)) / step,
    }


class Ends:
    """Watches a phase: when each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def __enter__(self) -> "Ends":
        return self

    def __exit__(self, *_: object) -> None: ...

    def log_step(self, *numbers: Any) -> None:
        self.ends.append(time.perf_counter())

    def log_validation(self, *numbers: Any) -> None: ...


def table(result: dict[str, Any]) -> list[str]:
    """A row for each model, what it learns from and how."""
    lines = [
        f"- {name}: {each['targets']:.0%} of positions are targets, {each['text']:.0%} text"
        for name, each in result["rows"].items()
    ]
    lines += ["", "| model | learns from | step | ms | million positions/s | spread |", "|---|---|---|--:|--:|--:|"]
    for model, learned in result["models"].items():
        for name, ways in learned.items():
            for how, one in ways.items():
                told = (
                    f"{one['milliseconds']:.1f} | {one['positions_per_second'] / 1e6:.3f} | {one['spread']:.2f}"
                    if "error" not in one
                    else f"{one['error'][:80]} | |"
                )
                lines.append(f"| {model} | {name} | {how} | {told} |")
    return lines


if __name__ == "__main__":
    main()
