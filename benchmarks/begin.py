"""How fast does a branch begin in a narrow stream, both ways, beside what the compiler makes of it, and is it right?

    python benchmarks/begin.py [--grid] [--out FILE.json] [--device cpu]

Values and gradients against the composed form in fp64, twice to the bit; then medians of event times under autocast to
bf16, with the cache swept between calls, at both places of an SLM-10M layer: a norm and attention's projection; what
attention made joins, a norm and the feed-forward layer's projection. Compiled, with products by PyTorch and the rest by
the compiler, or with our kernels; then these alone, with --grid under other cuts of their work. On a processor: the
same in Triton's interpreter, tiny, without the compiler.
"""

import argparse
import os
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

if "cpu" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported

import torch
from feed_forward import TOLERANCE, right
from scan import Clock
from torch import Tensor

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.ops.add_rms_norm_linear import Backend, add_rms_norm_linear
from lilliput.ops.add_rms_norm_linear import triton as kernels
from lilliput.ops.compiler import prepare_compiler
from lilliput.ops.linear import LinearOutput
from lilliput.ops.small_width import DTYPE
from lilliput.train.precision import autocast

PRECISION = {"cuda": "bf16", "cpu": "fp32"}
EPS = 1e-6

Shape = tuple[int, int, int, int]
PLACES: dict[str, dict[str, Shape]] = {
    "cuda": {"before attention": (131_072, 256, 384, 0), "behind it": (131_072, 256, 1_280, 256)},
    "cpu": {"before attention": (150, 64, 96, 0), "behind it": (150, 64, 96, 64)},
}
"""Positions, width, channels of the projection, and of the branch that joins."""
CUTS = tuple(product((64, 128), (32, 64), (4, 8), (2, 3, 4)))
"""To try: positions of a tile, channels multiplied at a time, warps, and how many times a program loads ahead."""


def draw(shape: Shape, device: str) -> list[Tensor]:
    """Stream and what joins it, narrow; gain and weights in fp32."""
    positions, width, projected, inner = shape
    generator = torch.Generator(device).manual_seed(projected)
    sizes = [(positions, width), (projected, width), (width,)] + ([(positions, inner), (width, inner)] if inner else [])
    drawn = [torch.randn(size, generator=generator, device=device) for size in sizes]
    narrow = [x.to(DTYPE) if len(x) == positions else x * x.shape[-1] ** -0.5 for x in drawn]
    return [x.requires_grad_() for x in narrow]


def branch(how: Backend) -> Callable[..., tuple[Tensor, Tensor]]:
    def call(stream: Tensor, first: Tensor, gain: Tensor, *branch: Tensor) -> tuple[Tensor, Tensor]:
        last = LinearOutput(*branch) if branch else None
        return add_rms_norm_linear(stream, (first,), gain, EPS, branch=last, backend=how)

    return call


def both(clock: Clock, how: Backend, inputs: list[Tensor]) -> list[float]:
    """Milliseconds of the forward pass alone and of it with gradients."""
    torch._dynamo.reset()
    prepare_compiler()
    made = branch(how) if clock.device == "cpu" else torch.compile(branch(how), dynamic=False, fullgraph=True)

    def forward() -> tuple[Tensor, Tensor]:
        with autocast(clock.device, PRECISION[clock.device]):
            return made(*inputs)

    grads = [torch.randn_like(x) for x in forward()]
    calls = forward, lambda: torch.autograd.grad(forward(), inputs, grads)
    return [round(clock.milliseconds(call), 3) for call in calls]


def alone(shape: Shape, device: str) -> dict[str, Callable[[], Tensor]]:
    """Each kernel by itself, and which of its module's cuts it runs under."""
    stream, first, _, *branch = (x.detach().to(DTYPE) for x in draw(shape, device))
    scales = torch.ones(len(stream), 1, device=device)
    grad = torch.randn(len(stream), len(first), device=device).to(DTYPE)
    calls: dict[str, Callable[[], Tensor]] = {
        "GRADIENTS": lambda: kernels.differentiate(grad, first, stream, scales, stream)
    }
    return calls | ({"JOIN": lambda: kernels.join(stream, *branch, EPS)[1]} if branch else {})


def grid(clock: Clock, shape: Shape) -> list[tuple[str, tuple[int, ...], float]]:
    """Milliseconds of each kernel under other cuts, the fastest first; not of those that do not fit or are wrong."""
    found = []
    for name, call in alone(shape, clock.device).items():
        shipped, expected = getattr(kernels, name), call().float()
        for cut in CUTS:
            setattr(kernels, name, cut)
            try:
                far = float((call().float() - expected).norm() / expected.norm())
                if far > TOLERANCE[PRECISION[clock.device]]:
                    print(f"    {name} {cut}: WRONG by {far:.2g}", flush=True)
                    continue
                found.append((name, cut, round(clock.milliseconds(call), 4)))
            except Exception as error:  # Triton's own: out of shared memory
                print(f"    {name} {cut}: {type(error).__name__}", flush=True)
        setattr(kernels, name, shipped)
    return sorted(found, key=lambda item: (item[0], item[2]))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--grid", action="store_true")
    options.add_argument("--device", default="cuda")
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    clock = Clock(chosen.device)
    results: dict[str, Any] = {}
    for name, shape in PLACES[chosen.device].items():
        inputs = draw(shape, chosen.device)
        few = draw((min(shape[0], 9_999), *shape[1:]), chosen.device)
        fine = right(branch(Backend.TRITON), branch(Backend.REFERENCE), few, PRECISION[chosen.device])
        results[name] = {"right": fine}
        for who, how in (("compiler", Backend.REFERENCE), ("lilliput", Backend.TRITON)):
            results[name][who] = both(clock, how, inputs)
        results[name]["kernels"] = {
            kernel: round(clock.milliseconds(call), 3) for kernel, call in alone(shape, chosen.device).items()
        }
        print(name, shape, flush=True)
        for title, found in results[name].items():
            print(f"    {title:12} {found}", flush=True)
        if chosen.grid:
            results[name]["grid"] = grid(clock, shape)
            for kernel, cut, time in results[name]["grid"]:
                print(f"    {kernel:12} {cut} {time:.4f} ms", flush=True)
        if chosen.out:
            write_json(chosen.out, {"environment": environment(), "results": results})


if __name__ == "__main__":
    main()
