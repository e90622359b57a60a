"""How many tokens a second does a whole training step take, beside the same model of its peers?

    python benchmarks/step.py SHAPE... [--peers] [--profile] [--steps N] [--out FILE.json] [--device cpu]

Shapes: slm-10m (128 x 1,024), llama-194m (16 x 2,048), odinnext-138m (32 x 2,048). Ours is the loop that a phase runs
through, on random tokens in documents: reading, forward, loss, backward, clip, fused AdamW, metrics. A peer is its own
model of the same shape under torch.compile (fla: eager, as it comes) with its own loss, bf16 autocast, clip and fused
AdamW. The median of the second half of the steps, the most memory handed out, and the time from the first import to the
end of the tenth step. --profile adds where the time of one step of ours goes.

Until some 17 seconds after its start a process that compiles takes up to 14 ms longer for each step, whichever it is
(one H100, PyTorch 2.11); with TORCHINDUCTOR_COMPILE_THREADS=1 it does not. So --steps should be enough for twice that.
"""

# ruff: noqa: E402, the clock begins before the imports
import time

BEGUN = time.perf_counter()  # before the imports, which a cold start pays for

import argparse
import itertools
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.base.units import Share, Steps, Tokens
from lilliput.model import ModelSpec
from lilliput.nn.gqa import GQA
from lilliput.objectives.next_token import NextToken
from lilliput.optim.adamw import AdamW
from lilliput.optim.schedule import Constant
from lilliput.plan.synthetic_data import DOCUMENT, RandomRows
from lilliput.publish.hf_formats.llama import LlamaFormat
from lilliput.publish.hf_formats.qwen3 import Qwen3Format
from lilliput.recipes import mtlm1_200m, odinnext_138m, slm_10m
from lilliput.train.loop import Trainer
from lilliput.train.machine import Machine
from lilliput.train.phase import Phase, Stage

WARM = 10
ADAM = AdamW(lr=1e-4)
SHAPES: dict[str, tuple[ModelSpec, Phase, int, int]] = {
    "slm-10m": (slm_10m.model, slm_10m.pretrain, 128, 1024),
    "llama-194m": (replace(mtlm1_200m.model, layers=24), mtlm1_200m.base, 16, 2048),
    "odinnext-138m": (odinnext_138m.model, slm_10m.pretrain, 32, 2048),
}
"""Model, a phase of it, rows and length of a step."""


class Stopwatch:
    """Watches a phase: when each step ended; profiles the last one."""

    def __init__(self, device: torch.device, steps: int, profile: bool):
        self.device, self.steps, self.ends = device, steps, []
        self.losses: list[float] = []
        self.profiler = torch.profiler.profile() if profile else None

    def __enter__(self) -> "Stopwatch":
        return self

    def __exit__(self, *_: object) -> None: ...

    def log_step(
        self, step: int, tokens: int, read: int, numbers: dict[str, float], headline: str = "cross_entropy"
    ) -> None:
        if self.profiler and step >= self.steps - 1 and self.device.type == "cuda":
            torch.cuda.synchronize()  # the update of a step runs on while the next one begins
        if self.profiler and step == self.steps:
            self.profiler.stop()
        self.ends.append(time.perf_counter())
        self.losses.append(numbers["cross_entropy"])
        if self.profiler and step == self.steps - 1:
            self.profiler.start()

    def log_validation(self, *_: object) -> None: ...


def shaped(name: str, steps: int, small: bool, times: int = 1) -> tuple[ModelSpec, Phase]:
    """A model, and a phase of so many steps, each of the shape's rows `times` over."""
    spec, phase, rows, length = SHAPES[name]
    if small:
        spec, rows, length = replace(spec, layers=2), 2, 128
    return spec, replace(
        phase,
        tokens=Tokens(steps * times * rows * length),
        length=length,
        batch_tokens=times * rows * length,
        optimizer=ADAM,
        stages=(Stage(share=1.0, objective=NextToken()),),
        schedule=Constant(warmup=Share(1.0)),
        save_every=Steps(10**9),
        measure_every=Steps(10**9),
    )


def ours(name: str, machine: Machine, steps: int, profile: bool, whole: bool, small: bool) -> dict[str, Any]:
    spec, phase = shaped(name, steps, small)
    model = spec.build(seed=0).to(machine.device)
    watch = Stopwatch(torch.device(machine.device), steps, profile)
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            model,
            phase,
            RandomRows(spec.vocab, document=None if whole else DOCUMENT),
            machine,
            folder=Path(folder),
            seed=0,
            report=print,
        ).train(lambda _: watch, lambda *_: {})  # type: ignore[arg-type]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    result = summary(watch.ends, phase.batch_tokens, parameters, last=watch.losses[-1])
    if watch.profiler:
        result["profile"] = profile_of(watch.profiler)
    return result


def summary(ends: list[float], tokens: int, parameters: int, last: float) -> dict[str, Any]:
    seconds = [later - sooner for sooner, later in itertools.pairwise(ends)][len(ends) // 2 : -1] or [0.0]
    step = statistics.median(seconds)
    return {
        "milliseconds": round(1e3 * step, 2),
        "tokens_per_second": round(tokens / step) if step else None,
        "tflops_6n": round(6 * parameters * tokens / step / 1e12, 1) if step else None,
        "spread": round((max(seconds) - min(seconds)) / step, 3) if step else None,
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if torch.cuda.is_available() else None,
        "tenth_step_after": round(ends[WARM - 1] - BEGUN, 1),
        "parameters": parameters,
        "last_loss": round(last, 4),
    }


def peer(name: str, machine: Machine, steps: int) -> tuple[str, dict[str, Any]]:
    """The peer's name, and its figures."""
    spec, phase, rows, length = SHAPES[name]
    who, model, loss_of, compiled = _transformers(spec, length) if isinstance(spec.mixer, GQA) else _fla(spec)
    model = model.to(machine.device).train()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    run: Callable[..., Any] = torch.compile(loss_of, dynamic=False) if compiled else loss_of
    tokens = torch.randint(spec.vocab, (rows, length + 1), device=machine.device)
    ends, last = [], 0.0
    for _ in range(steps):
        with machine.cast():
            loss = run(model, tokens)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), phase.clip)
        last, _ = torch.stack([loss.detach(), norm]).tolist()  # read once a step, as ours
        optimizer.step()
        optimizer.zero_grad()
        ends.append(time.perf_counter())
    return who, summary(ends, rows * length, parameters, last)


def _transformers(spec: ModelSpec, length: int) -> tuple[str, nn.Module, Callable[..., Any], bool]:
    import transformers

    layout = (Qwen3Format if spec.mixer.qk_norm else LlamaFormat)(context=length)  # type: ignore[attr-defined]
    plain = layout.config(spec)
    config = transformers.AutoConfig.for_model(plain.pop("model_type"), **plain)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")

    def loss_of(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        return nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())

    return f"transformers {transformers.__version__}, torch.compile", model, loss_of, True


def _fla(spec: ModelSpec) -> tuple[str, nn.Module, Callable[..., Any], bool]:
    import fla
    from fla.models import HGRN2Config, HGRN2ForCausalLM

    config = HGRN2Config(
        hidden_size=spec.width,
        num_hidden_layers=spec.layers,
        num_heads=spec.mixer.heads,  # type: ignore[attr-defined]
        expand_ratio=None,
        intermediate_size=spec.ffn.inner,
        vocab_size=spec.vocab,
        tie_word_embeddings=True,
        use_cache=False,
        fuse_linear_cross_entropy=True,
        fuse_cross_entropy=False,
    )

    def loss_of(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
        return model(input_ids=tokens[:, :-1], labels=tokens[:, :-1]).loss

    return f"fla {fla.__version__}, eager", HGRN2ForCausalLM(config), loss_of, False


KINDS = (
    ("stream", ("join_kernel", "begin_gradients")),
    ("ffn", ("gated_", "product_kernel")),
    ("attention", ("outputs_kernel", "grad_queries", "grad_keys", "deltas", "spans_kernel", "flash", "fmha", "sdpa")),
    ("scan", ("states_kernel", "gradients_kernel")),
    ("loss", ("charge_kernel", "differentiate")),
    ("products", ("gemm", "nvjet", "cutlass", "gemv", "cublas", "splitK", "splitk")),
    ("optimizer", ("multi_tensor", "foreach", "Adam", "lpnorm")),
    ("fused", ("triton_",)),
    ("copies", ("Memcpy", "Memset")),
)


def profile_of(profiler: torch.profiler.profile) -> dict[str, Any]:
    """Milliseconds of kernels by kind, and of the longest ones."""
    kinds: dict[str, float] = defaultdict(float)
    kernels: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    for event in profiler.events() or ():
        if event.device_type.name != "CUDA" or event.name.startswith(("Optimizer", "Torch-Compiled", "##")):
            continue
        kind = next((kind for kind, names in KINDS if any(name in event.name for name in names)), "others")
        kinds[kind] += event.device_time / 1e3
        kernels[event.name][0] += event.device_time / 1e3
        kernels[event.name][1] += 1
    spans = sorted(
        (event.time_range.start, event.time_range.end, event.name)
        for event in profiler.events() or ()
        if event.device_type.name == "CUDA" and not event.name.startswith(("Optimizer", "Torch-Compiled", "##"))
    )
    idle, reached, before = [], spans[0][1], spans[0][2]
    for start, end, kernel in spans[1:]:
        if start > reached:
            idle.append((round((start - reached) / 1e3, 3), before[:50], kernel[:50]))
        if end > reached:
            reached, before = end, kernel
    longest = sorted(kernels.items(), key=lambda item: -item[1][0])[:25]
    return {
        "kinds": {kind: round(time, 2) for kind, time in sorted(kinds.items(), key=lambda item: -item[1])},
        "idle": round(sum(gap for gap, *_ in idle), 2),
        "gaps": sorted(idle, reverse=True)[:12],
        "longest": [(name[:100], round(time, 2), count) for name, (time, count) in longest],
    }


def show(name: str, who: str, result: dict[str, Any]) -> None:
    print(
        f"{name:14} {who:36} {result['milliseconds']:9.2f} ms {result['tokens_per_second'] or 0:12,} tokens/s "
        f"{result['tflops_6n'] or 0:6.1f} TFLOP/s {result['peak_gib'] or 0:6.2f} GiB, tenth step after "
        f"{result['tenth_step_after']:.1f} s",
        flush=True,
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("shapes", nargs="+", choices=SHAPES)
    options.add_argument("--peers", action="store_true")
    options.add_argument("--profile", action="store_true")
    options.add_argument("--compile", default="auto", help="off, blocks or graphs")
    options.add_argument("--whole", action="store_true", help="one document a row, as the peers have it")
    options.add_argument("--rows", type=int, default=128, help="of a micro-batch at most")
    options.add_argument("--steps", type=int, default=100)
    options.add_argument("--device", default="cuda")
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    if chosen.profile and chosen.device == "cpu":
        options.error("--profile says where the time of a GPU goes")
    machine = Machine(device=chosen.device, precision="bf16", rows=chosen.rows, compile=chosen.compile)
    results: dict[str, Any] = {}
    for name in chosen.shapes:
        if chosen.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        result = ours(
            name, machine.resolved(), chosen.steps, chosen.profile, chosen.whole, small=chosen.device == "cpu"
        )
        results[name] = {"lilliput": result}
        show(name, "lilliput", result)
        for kind, time_of in result.get("profile", {}).get("kinds", {}).items():
            print(f"    {kind:12} {time_of:8.2f} ms")
        if "profile" in result:
            print(f"    {'idle':12} {result['profile']['idle']:8.2f} ms")
            for gap in result["profile"]["gaps"]:
                print("       ", *gap)
        for kernel, time_of, count in result.get("profile", {}).get("longest", []):
            print(f"        {time_of:8.2f} ms {count:5d} x {kernel}")
        if chosen.peers:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            who, result = peer(name, machine.resolved(), chosen.steps)
            results[name][who] = result
            show(name, who, result)
        if chosen.out:
            write_json(chosen.out, {"environment": environment(), "results": results})


if __name__ == "__main__":
    main()
