"""How fast is a gated feed-forward layer, both ways, beside what the compiler makes of it, and is it right?

    python benchmarks/feed_forward.py [--grid] [--out FILE.json] [--device cpu]

Values and gradients against the composed form in fp64, twice to the bit; then medians of event times under autocast to
bf16, with the cache swept between calls, of the layers of SLM-10M, the 194 M Llama and OdinNext: compiled and with as
much made again as in training, what lies between the products by the compiler or by our kernels. Beside them the bytes
kept for the backward pass, the products alone, and these with every tensor between them read and written once, at the
speed of a copy measured in the same call; with --grid the kernels under other cuts of their work. On a processor: the
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
import torch._functorch.config as functorch
import torch.nn.functional as F
from scan import Clock
from torch import Tensor, nn

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.ops.compiler import prepare_compiler
from lilliput.ops.linear import fused_linear
from lilliput.ops.swiglu import Activation, Backend, swiglu
from lilliput.ops.swiglu import triton as kernels
from lilliput.plan.saved_tensors import saved_tensor_bytes
from lilliput.train.compile import RECOMPUTED
from lilliput.train.precision import autocast

TOLERANCE = {"fp32": 1e-4, "fp16": 6e-3, "bf16": 4e-2}
PRECISION = {"cuda": "bf16", "cpu": "fp16"}
NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}

Shape = tuple[int, int, int, Activation | None]
LAYERS: dict[str, dict[str, Shape]] = {
    "cuda": {
        "SLM-10M": (131_072, 256, 640, None),
        "Llama 194 M": (32_768, 768, 2_048, None),
        "OdinNext": (65_536, 768, 2_048, "silu"),
    },
    "cpu": {"tiny": (301, 48, 96, None), "tiny, squared": (301, 48, 96, "silu")},
}
"""Positions, width, inner width, and what is squared."""
AHEAD, BACK = 3, 6
"""Passes over a tensor [positions, inner] between the products: both projections and the activation; both and the
activation's gradient, the activation again and the gradients of both."""
CUTS = tuple(product((8, 16, 32), (64, 128, 256), (4, 8)))
"""To try: positions and channels of a program, its warps."""

Layer = Callable[..., tuple[Tensor, ...]]


def layer(how: Backend, square: Activation | None) -> Layer:
    def call(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> tuple[Tensor]:
        return (swiglu(fused_linear(x, gate, up), down, square, backend=how),)

    return call


def products(x: Tensor, gate: Tensor, up: Tensor, down: Tensor, activation: Tensor) -> tuple[Tensor, Tensor]:
    """Those of a layer, without what lies between them."""
    return fused_linear(x, gate, up), F.linear(activation, down)


def draw(shape: Shape, device: str) -> list[Tensor]:
    """x, narrow as the stream, and the weights of gate, up and down in fp32."""
    positions, width, inner, _ = shape
    generator = torch.Generator(device).manual_seed(positions)
    sizes = ((positions, width), (inner, width), (inner, width), (width, inner))
    drawn = [torch.randn(size, generator=generator, device=device) for size in sizes]
    leaves = [drawn[0].to(NARROW[PRECISION[device]]), *(weight * weight.shape[1] ** -0.5 for weight in drawn[1:])]
    return [leaf.requires_grad_() for leaf in leaves]


def right(ours: Layer, composed: Layer, inputs: list[Tensor], precision: str) -> bool:
    """Whether values and gradients are those of fp64, and a second time the same to the bit."""

    def run(call: Layer, wide: bool) -> list[Tensor]:
        leaves = [(x.double() if wide else x).detach().requires_grad_() for x in inputs]
        with autocast(leaves[0].device.type, "fp32" if wide else precision):
            outputs = call(*leaves)
        weights = [torch.arange(x.numel(), device=x.device).view_as(x).cos() for x in outputs]
        loss = torch.stack([(x.double() * weight).sum() for x, weight in zip(outputs, weights, strict=True)]).sum()
        return [*(x.detach() for x in outputs), *torch.autograd.grad(loss, leaves)]

    ones, others = (run(ours, wide=False) for _ in range(2))
    errors = [
        float((one.double() - exact).norm() / exact.norm())
        for one, exact in zip(ones, run(composed, wide=True), strict=True)
    ]
    fine = max(errors) < TOLERANCE[precision] and all(torch.equal(a, b) for a, b in zip(ones, others, strict=True))
    if not fine:
        print("WRONG", [tuple(x.shape) for x in inputs], errors, flush=True)
    return fine


def both(clock: Clock, call: Layer, inputs: list[Tensor]) -> tuple[tuple[float, float], int]:
    """Milliseconds of the forward pass alone and of it with gradients, and the bytes that it keeps for them."""
    torch._dynamo.reset()
    prepare_compiler()
    made = call if clock.device == "cpu" else torch.compile(call, dynamic=False, fullgraph=True)
    grads: list[Tensor] = []

    def forward() -> tuple[Tensor, ...]:
        with autocast(clock.device, PRECISION[clock.device]):
            return made(*inputs)

    def kept() -> Tensor:
        outputs = forward()
        grads.extend(torch.randn_like(one) for one in outputs)
        return outputs[0]

    with functorch.patch(RECOMPUTED):
        _, bytes_kept = saved_tensor_bytes(kept, nn.ParameterList(inputs[1:4]))
        run = [forward, lambda: torch.autograd.grad(forward(), inputs, grads)]
        ahead, whole = (clock.milliseconds(call) for call in run)
    return (ahead, whole), bytes_kept


def between(shape: Shape, device: str) -> dict[str, Callable[[], object]]:
    """Each kernel alone."""
    positions, _, inner, square = shape
    projected = torch.randn(positions, 2 * inner, device=device).to(NARROW[PRECISION[device]])
    grad = projected[:, :inner].contiguous()
    return {
        "forward": lambda: kernels.activate(projected, square),
        "gradients": lambda: kernels.differentiate(projected, grad, square),
    }


def grid(clock: Clock, shape: Shape) -> list[tuple[str, tuple[int, ...], float]]:
    """Milliseconds of each kernel under other cuts, the fastest first."""
    shipped, found = (kernels.TILE, kernels.WARPS), []
    for (rows, columns, warps), (name, call) in product(CUTS, between(shape, clock.device).items()):
        kernels.TILE, kernels.WARPS = (rows, columns), warps
        found.append((name, (rows, columns, warps), round(clock.milliseconds(call), 4)))
    kernels.TILE, kernels.WARPS = shipped
    return sorted(found, key=lambda item: (item[0], item[2]))


def measure(clock: Clock, shape: Shape) -> dict[str, Any]:
    """Milliseconds forward and both ways, MiB, and whether the layer is right."""
    device, (positions, _, inner, square) = clock.device, shape
    inputs = draw(shape, device)
    activation = torch.randn(positions, inner, device=device).to(inputs[0].dtype).requires_grad_()
    target = torch.empty_like(activation)
    a_pass = clock.milliseconds(lambda: target.copy_(activation.detach())) / 2
    moved = (AHEAD, AHEAD + BACK)
    alone, _ = both(clock, products, [*inputs, activation])
    entry: dict[str, Any] = {
        "right": right(
            layer(Backend.TRITON, square),
            layer(Backend.REFERENCE, square),
            draw((min(positions, 9_999), *shape[1:]), device),
            PRECISION[device],
        ),
        "MiB between products": [round(count * activation.nbytes / 2**20, 1) for count in moved],
        "products": [round(time, 3) for time in alone],
        "least": [round(time + count * a_pass, 3) for time, count in zip(alone, moved, strict=True)],
        "kernels": {name: round(clock.milliseconds(call), 3) for name, call in between(shape, device).items()},
        "kernels' least": [round(count * a_pass, 3) for count in (AHEAD, BACK)],
    }
    for who, how in (("compiler", Backend.REFERENCE), ("lilliput", Backend.TRITON)):
        times, kept = both(clock, layer(how, square), inputs)
        entry[who] = {"ms": [round(time, 3) for time in times], "MiB kept": round(kept / 2**20, 1)}
    return entry


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--grid", action="store_true")
    options.add_argument("--device", default="cuda")
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    clock = Clock(chosen.device)
    results: dict[str, Any] = {}
    for name, shape in LAYERS[chosen.device].items():
        results[name] = measure(clock, shape)
        print(name, shape, flush=True)
        for title, found in results[name].items():
            print(f"    {title:22} {found}", flush=True)
        if chosen.grid:
            results[name]["grid"] = grid(clock, shape)
            for kernel, cut, time in results[name]["grid"]:
                print(f"    {kernel:12} {cut} {time:.4f} ms", flush=True)
        if chosen.out:
            write_json(chosen.out, {"environment": environment(), "results": results})


if __name__ == "__main__":
    main()
