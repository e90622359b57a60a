"""How long does an optimizer take at the shapes of the model cards, in how many launches, and is it little of a step?

    python benchmarks/optimizer.py [--precision bf16] [--out FILE.json] [--device cpu]

Orthogonalisation against fp64, singular values too. Then every optimizer on the same parameters and gradients: median
time of a step alone, time of its kernels, time until the host has queued it, launches, whether the host ever waits, and
its share of a training step: of a measured pass times the passes of the card's batch. On a processor: toy sizes.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.data.batch import Batch
from lilliput.model import LanguageModel, ModelSpec
from lilliput.nn.ffn import SwiGLU
from lilliput.objectives.next_token import NextToken
from lilliput.objectives.noise import Noise
from lilliput.objectives.objective import build_objectives
from lilliput.ops.newton_schulz import POLYNOMIALS, Backend, orthogonalize
from lilliput.optim.adamw import AdamW
from lilliput.optim.muon import Muon
from lilliput.optim.normuon import VARIANTS, NorMuon
from lilliput.optim.optimizer import set_multiplier
from lilliput.optim.roles import Role, roles
from lilliput.recipes import mtlm1_200m, odinnext_138m, slm_10m
from lilliput.train.compile import compiled
from lilliput.train.precision import autocast

REPEATS = {"cuda": 30, "cpu": 5}


@dataclass(frozen=True)
class Card:
    """A model, and the positions of a step."""

    spec: ModelSpec
    positions: int
    length: int
    rows: int
    """Of the pass that is measured."""


CARDS = {
    "cuda": {
        "SLM-10M": Card(slm_10m.model, slm_10m.pretrain.batch_tokens, 1024, 64),
        "MTLM1, 24 layers": Card(replace(mtlm1_200m.model, layers=24), mtlm1_200m.base.batch_tokens, 1024, 16),
        "OdinNext": Card(odinnext_138m.model, odinnext_138m.BATCH, 2048, 16),
    },
    "cpu": {
        "tiny": Card(replace(slm_10m.model, vocab=512, width=64, layers=2, ffn=SwiGLU(inner=160)), 4096, 64, 4),
    },
}


def contenders(model: LanguageModel) -> dict[str, list[torch.optim.Optimizer]]:
    """Each a way to move all parameters once."""
    matrices, rest = [], []
    for role, by_name in roles(model).items():
        (matrices if role is Role.MATRIX else rest).extend(by_name.values())
    decayed = [{"params": [p for p in rest if p.ndim > 1]}, {"params": [p for p in rest if p.ndim < 2]}]
    return {
        **{f"NorMuon, {name}": [NorMuon(lr=1e-3, adam_lr=1e-3, variant=name).build(model)] for name in VARIANTS},
        "NorMuon, cautious": [NorMuon(lr=1e-3, adam_lr=1e-3, cautious=True).build(model)],
        "Muon": [Muon(lr=1e-3, adam_lr=1e-3).build(model)],
        "torch Muon + fused AdamW": [
            torch.optim.Muon(matrices, lr=1e-3, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(decayed, lr=1e-3, fused=True),
        ],
        "AdamW (torch's, fused)": [AdamW(lr=1e-3).build(model)],
        "AdamW, cautious": [AdamW(lr=1e-3, cautious=True).build(model)],
    }


def measure(optimizers: list[torch.optim.Optimizer], device: str, precision: str) -> dict[str, float]:
    """Milliseconds, launches and waits of a step."""

    def step() -> None:
        with autocast(device, precision):
            for optimizer in optimizers:
                optimizer.step()

    for optimizer in optimizers:
        if "peak" in optimizer.param_groups[0]:
            set_multiplier(optimizer, 1e-3)
    for _ in range(3):
        step()
    result = {"ms": milliseconds(step, device)}
    if device == "cuda":
        torch.cuda.synchronize()
        began = time.perf_counter()
        step()
        result["host ms"] = 1e3 * (time.perf_counter() - began)
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            step()
            torch.cuda.synchronize()
        events = [event for event in profile.key_averages() if event.device_time_total > 0]
        result["kernels ms"] = sum(event.device_time_total for event in events) / 1e3
        result["launches"] = sum(event.count for event in events)
        result["waits"] = waits(step)
    return result


def waits(step: Callable[[], None]) -> bool:
    """Whether the host waits for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    except RuntimeError as error:
        print("waits:", str(error).splitlines()[0])
        return True
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return False


def milliseconds(call: Callable[[], None], device: str) -> float:
    """The median of single calls, by events where there are any."""
    times = []
    for _ in range(REPEATS[device]):
        if device == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end))
        else:
            began = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times)


def step_milliseconds(model: LanguageModel, card: Card, device: str, precision: str) -> float:
    """Forward and backward passes of the card's batch, from one pass."""
    tokens = torch.randint(card.spec.vocab, (card.rows, card.length + 1), device=device)
    batch = Batch(tokens=tokens, weight=torch.ones(tokens.shape, device=device), document_ids=torch.zeros_like(tokens))
    task, total = build_objectives([NextToken()], model, seed=0)[0], NextToken().denominator(batch)
    progress, noise = torch.zeros((), device=device), Noise(device)

    def run() -> None:
        with autocast(device, precision):
            loss = task(batch, total, 0, progress, noise).loss
        loss.backward()

    with compiled(model, "blocks" if device == "cuda" else "off"):  # as a phase runs them
        for _ in range(3):
            run()
        return milliseconds(run, device) * card.positions / (card.rows * card.length)


def compare(card: Card, device: str, precision: str) -> dict[str, Any]:
    model = card.spec.build(seed=0).to(device)
    passes = step_milliseconds(model, card, device, precision)
    found = {}
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    for name in contenders(model):
        optimizers = contenders(model)[name]  # the state of one at a time
        found[name] = measure(optimizers, device, precision)
        found[name]["share"] = found[name]["ms"] / (found[name]["ms"] + passes)
        del optimizers
    return {"passes ms": passes, "optimizers": found}


def errors(device: str) -> dict[str, dict[str, float]]:
    """||O - O64|| / ||O64|| of either backend, and where singular values end."""
    rows, columns = (768, 2048) if device == "cuda" else (24, 64)
    matrices = torch.randn(4, rows, columns, device=device) * torch.logspace(-2, 0, columns, device=device)
    result = {}
    for name, polynomials in POLYNOMIALS.items():
        exact = orthogonalize(matrices.double(), polynomials, Backend.REFERENCE)
        for precision in ("fp32", "bf16", "fp16"):
            for backend in (Backend.REFERENCE, Backend.TORCH):
                with autocast(device, precision):
                    found = orthogonalize(matrices, polynomials, backend).double()
                values: Tensor = torch.linalg.svdvals(found)
                result[f"{name}, {precision}, {backend.value}"] = {
                    "error": float((found - exact).norm() / exact.norm()),
                    "least singular value": float(values.min()),
                    "largest": float(values.max()),
                }
    return result


def show(result: dict[str, Any]) -> None:
    print(f"{'orthogonalisation':36} {'error':>9} {'singular values':>17}")
    for name, found in result["orthogonalisation"].items():
        print(f"{name:36} {found['error']:9.1e} {found['least singular value']:8.3f} {found['largest']:8.3f}")
    for card, made in result["cards"].items():
        print(f"\n{card}: passes of a step {made['passes ms']:.1f} ms")
        names = ("ms", "kernels ms", "host ms", "launches", "waits")
        print(f"{'':28} {'share':>7}" + "".join(f" {name:>10}" for name in names))
        for name, found in made["optimizers"].items():
            values = "".join(f" {found[key]:10.5g}" if key in found else f" {'':>10}" for key in names)
            print(f"{name:28} {100 * found['share']:6.2f}%{values}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--precision", default="bf16", choices=("fp32", "bf16", "fp16"))
    arguments.add_argument("--out", type=Path)
    arguments.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    given = arguments.parse_args()
    device = given.device
    torch.manual_seed(0)
    result: dict[str, Any] = {"environment": environment(), "precision": given.precision}
    if device == "cuda":
        result["device"] = torch.cuda.get_device_name()
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    result["orthogonalisation"] = errors(device)
    result["cards"] = {name: compare(card, device, given.precision) for name, card in CARDS[device].items()}
    if given.out:
        write_json(given.out, result)
    show(result)


if __name__ == "__main__":
    main()
