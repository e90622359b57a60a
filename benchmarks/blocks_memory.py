"""How much memory does a step of one denoising block need, against one of all layers?

    python benchmarks/blocks_memory.py [--rows 16] [--blocks 4] [--compile graphs] [--device cuda] [--out FILE.json]

The model, the losses and the optimizer of odinnext-138m, in bf16, with a step's rows of 2,048 random tokens in one
micro-batch. Told is the most that the allocator had handed out in any of some steps, the first ones too, in which
layers are compiled and graphs captured; all weights are among it. A block alone is a machine that owns no other one:
the optimizer holds no state for the others. In turns, as on one device, it does, and with graphs the gradients of each
block keep their place. A CPU runs a toy model and tells no memory: there it is a test that the script runs.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.base.units import Tokens
from lilliput.model import ModelSpec
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.routes.diffusion_blocks import DiffusionBlocks
from lilliput.optim.schedule import Constant
from lilliput.plan.synthetic_data import RandomRows
from lilliput.recipes import odinnext_138m
from lilliput.shrink import shrink
from lilliput.train.compile import compiled
from lilliput.train.loop import Trainer
from lilliput.train.machine import Machine
from lilliput.train.memory import give_back
from lilliput.train.phase import Phase, Stage
from lilliput.train.ranks import OneRank
from lilliput.train.spike_detection import NoGuard

STEPS = 5
"""The first is launched and the second captured, at the latest; times the number of blocks where they take turns."""


class OneBlock(OneRank):
    """Draws from some of the blocks alone."""

    def __init__(self, blocks: Sequence[int]):
        self._blocks = list(blocks)

    def variants(self, step: int, count: int) -> list[int]:
        return self._blocks


def peak(phase: Phase, spec: ModelSpec, machine: Machine, blocks: Sequence[int], steps: int) -> int | None:
    """Return the most bytes that were handed out in some steps of these variants; None where it is not known."""
    give_back(machine.device)
    cuda = machine.device == "cuda"
    before = torch.cuda.memory_allocated() if cuda else 0
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    model = spec.build(seed=0).to(machine.device)
    with TemporaryDirectory() as folder, compiled(model, machine.compile):
        reader, ranks = RandomRows(spec.vocab), OneBlock(blocks)
        trainer = Trainer(model, phase, reader, machine, folder=Path(folder), seed=0, report=print, ranks=ranks)
        trainer.restore()
        for _ in range(steps):
            trainer.train_step()
        found = torch.cuda.max_memory_allocated() - before if cuda else None
        trainer.release()
    return found


def measure(machine: Machine, rows: int, blocks: int) -> list[dict[str, Any]]:
    """Return the peaks of all layers, of the blocks in turns, and of each block."""
    recipe = odinnext_138m.recipe if machine.device == "cuda" else shrink(odinnext_138m.recipe)
    phase, found = recipe.phases[1], []

    def add(name: str, objective: NextToken, variants: Sequence[int], steps: int = STEPS) -> None:
        one = replace(
            phase,
            tokens=Tokens(10_000 * rows * phase.length),
            batch_tokens=rows * phase.length,
            stages=(Stage(share=1.0, objective=objective),),
            schedule=Constant(),
            guard=NoGuard(),
        )
        found.append({"what": name, "bytes": peak(one, recipe.model.shape, machine, variants, steps)})
        told = found[-1]["bytes"]
        print(f"{name:24} " + ("not told here" if told is None else f"{told / 2**30:6.2f} GiB"), flush=True)

    denoising = NextToken(route=DiffusionBlocks(blocks=blocks), terms=odinnext_138m.terms)
    add("end to end", NextToken(terms=odinnext_138m.terms), [0])
    add(f"{blocks} blocks in turns", denoising, range(blocks), 2 * STEPS * blocks)
    for block in range(blocks):
        add(f"block {block + 1} of {blocks} alone", denoising, [block])
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=16)
    options.add_argument("--blocks", type=int, default=4)
    options.add_argument("--compile", default="auto", choices=("auto", "off", "blocks", "graphs"))
    options.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    precision = "bf16" if chosen.device == "cuda" else "fp32"
    machine = Machine(device=chosen.device, precision=precision, rows=chosen.rows, compile=chosen.compile).resolved()
    peaks = measure(machine, chosen.rows, chosen.blocks)
    if chosen.out:
        told = {"rows": chosen.rows, "blocks": chosen.blocks, "compile": machine.compile, "peaks": peaks}
        write_json(chosen.out, {"environment": environment()} | told)


if __name__ == "__main__":
    main()
