"""How fast is the loss of a language model's head, beside PyTorch's, fla's and liger's, and is it right?

    python benchmarks/loss.py [--sweep] [--out FILE.json] [--device cpu]

Values and gradients against the naive form in fp64, twice to the bit; then medians of event times and peak memory of a
bf16 product with an fp32 head, at the shapes of SLM-10M and OdinNext; where the time of one forward and backward pass
goes; and with --sweep the same for other sizes of the buffer of logits, of a program's tile and of a warp's part. On a
processor: the same in Triton's interpreter, tiny.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import pairwise, product
from pathlib import Path

if "cpu" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported

import torch
import torch.nn.functional as F
from torch import Tensor

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.ops.fused_linear_cross_entropy import Backend, fused_linear_cross_entropy
from lilliput.ops.fused_linear_cross_entropy import triton as kernels
from lilliput.ops.fused_linear_cross_entropy.reference import LossCoefficients

SHAPES = {
    "cuda": {"SLM-10M, 128 x 1024": (131_072, 256, 8192), "OdinNext, 32 x 2048": (65_536, 768, 32_768)},
    "cpu": {"tiny": (96, 16, 100)},
}
"""Positions, width and vocabulary."""
TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 1.5e-2}
NAMES = ("total", "loss", "lse", "d hidden", "d head")
PRICE = LossCoefficients(cross_entropy=1.0, z=0.01)
UPSTREAM = 0.3
"""What the total is multiplied with, so that gradients that are made before it is known are rounded twice."""
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Hidden states [P, D], head [V, D] and targets [P] -> the mean cross-entropy."""


def draw(shape: tuple[int, int, int], dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, an fp32 head, and targets; logits have a standard deviation of 2."""
    positions, width, vocab = shape
    generator = torch.Generator(device).manual_seed(positions)
    hidden = torch.randn(positions, width, generator=generator, device=device).to(dtype)
    head = torch.randn(vocab, width, generator=generator, device=device) * (2 * width**-0.5)
    targets = torch.randint(vocab - 5, (positions,), generator=generator, device=device)
    return hidden.requires_grad_(), head.requires_grad_(), targets


def errors(dtype: torch.dtype, bag: int, cap: float | None, padding: int, device: str) -> dict[str, float | bool]:
    """||a - b|| / ||b|| of all outputs and both gradients, and whether a second run is equal to the bit."""
    shape = (1021, 256, 8193) if device == "cuda" else (33, 16, 75)
    hidden, head, _ = draw(shape, dtype, device)
    targets = torch.randint(shape[2] - padding, (1, shape[0], bag), device=device)
    weight = torch.rand(1, shape[0], bag, device=device)
    weight[:, ::3] = 0
    weight[:, 1, 0] = 0

    def run(backend: Backend, dtype: torch.dtype, narrow: torch.dtype) -> list[Tensor]:
        leaves = hidden.detach().to(dtype)[None].requires_grad_(), head.detach().to(narrow).to(dtype).requires_grad_()
        settings = {"coefficients": PRICE, "softcap": cap, "vocab": shape[2] - padding, "backend": backend}
        charges = fused_linear_cross_entropy(*leaves, targets, weight, **settings)
        return [*charges, *torch.autograd.grad(UPSTREAM * charges.total, leaves)]

    ones, others = (run(Backend.TRITON, dtype, dtype) for _ in range(2))
    exact = run(Backend.REFERENCE, torch.float64, dtype)
    result: dict[str, float | bool] = {
        name: float((one.double() - right).detach().norm() / right.detach().norm())
        for name, one, right in zip(NAMES, ones, exact, strict=True)
    }
    return result | {"same twice": all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))}


def ours(backend: Backend, like: Tensor, charged: float = 1.0, bag: int = 1) -> Loss:
    """The mean over the positions that are charged, evenly spread over those of the targets given.

    A position has so many targets as a bag of the next ones, of equal weight.
    """
    places = torch.arange(len(like), device=like.device)
    weight = ((places * charged).floor() != ((places + 1) * charged).floor()).float()[None, :, None]
    count, weight = float(weight.sum()), (weight / bag).expand(-1, -1, bag)

    def mean(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        ahead = torch.stack([targets.roll(-place) for place in range(bag)], dim=-1)[None]
        return fused_linear_cross_entropy(hidden[None], head, ahead, weight, backend=backend).total / count

    return mean


def plain(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, head.to(hidden.dtype)).float(), targets)


def contenders(targets: Tensor) -> Iterator[tuple[str, Loss]]:
    yield "lilliput", ours(Backend.TRITON, targets)
    yield "lilliput, 4 targets", ours(Backend.TRITON, targets, bag=4)
    yield "lilliput, 16 targets", ours(Backend.TRITON, targets, bag=16)
    yield "lilliput, half charged", ours(Backend.TRITON, targets, 0.5)
    yield "lilliput, chunked", ours(Backend.CHUNK, targets)
    yield "cross_entropy", plain
    if targets.is_cuda:
        yield "cross_entropy, compiled", torch.compile(plain, dynamic=False)
    if find_spec("fla"):
        from fla.modules import FusedLinearCrossEntropyLoss

        fla = FusedLinearCrossEntropyLoss()
        yield "fla", lambda hidden, head, targets: fla(hidden, targets, head.to(hidden.dtype))
    if find_spec("liger_kernel"):
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        liger = LigerFusedLinearCrossEntropyLoss()
        yield "liger", lambda hidden, head, targets: liger(head.to(hidden.dtype), hidden, targets)


def milliseconds(call: Callable[[], object], device: str) -> float:
    """Median of 20 calls; inputs are larger than any cache."""
    if device == "cpu":
        began = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - began)
    for _ in range(3):
        call()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(21)]
    events[0].record()
    for event in events[1:]:
        call()
        event.record()
    torch.cuda.synchronize()
    return statistics.median(one.elapsed_time(other) for one, other in pairwise(events))


def measure(loss: Loss, inputs: tuple[Tensor, Tensor, Tensor], device: str) -> dict[str, float]:
    """The value, milliseconds forward and of both passes, peak memory in MiB, and seconds of the first call."""

    def both() -> Tensor:
        value = loss(*inputs)
        torch.autograd.grad(value, inputs[:2])
        return value.detach()

    def forward() -> Tensor:
        with torch.no_grad():
            return loss(*inputs)

    began = time.perf_counter()
    result = {"value": float(both()), "first seconds": time.perf_counter() - began}
    result |= {"forward": milliseconds(forward, device), "both": milliseconds(both, device)}
    if device == "cuda":
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        both()
        result["peak MiB"] = (torch.cuda.max_memory_allocated() - held) / 2**20
    return result


def compare(shape: tuple[int, int, int], device: str) -> dict[str, dict[str, float]]:
    inputs = draw(shape, torch.bfloat16, device)
    result = {}
    for name, loss in contenders(inputs[2]):
        try:
            result[name] = measure(loss, inputs, device)
        except Exception as error:  # another's package that does not run is an answer, too
            print(name, "failed:", f"{type(error).__name__}: {error}".splitlines()[0][:150])
        if device == "cuda":
            torch.cuda.empty_cache()
    return result


def spent(shape: tuple[int, int, int]) -> dict[str, float]:
    """Milliseconds of one forward and backward pass by kernel, the longest first."""
    hidden, head, targets = draw(shape, torch.bfloat16, "cuda")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        torch.autograd.grad(ours(Backend.TRITON, targets)(hidden, head, targets), (hidden, head))
        torch.cuda.synchronize()
    times = {event.key[:70]: event.device_time_total / 1e3 for event in profile.key_averages()}
    return dict(sorted(((name, time) for name, time in times.items() if time > 0), key=lambda item: -item[1])[:8])


def sweep(shape: tuple[int, int, int], device: str) -> dict[str, dict[str, float]]:
    """The same work with other buffers, tiles and warps than those shipped."""
    shipped = kernels.BUFFER, kernels.LARGEST_TILE, kernels.PER_WARP
    inputs = draw(shape, torch.bfloat16, device)
    cuts = [(mebibytes, *shipped[1:]) for mebibytes in (16, 64, 128, 256, 512)]
    cuts += [(256, tile, warp) for tile, warp in product((2048, 4096, 8192, 16_384), (512, 1024))]
    result = {}
    for mebibytes, tile, warp in cuts:
        kernels.BUFFER, kernels.LARGEST_TILE, kernels.PER_WARP = mebibytes * 2**20, tile, warp
        name = f"{mebibytes} MiB, tile {tile}, warp {warp}"
        result[name] = measure(ours(Backend.TRITON, inputs[2]), inputs, device)
    kernels.BUFFER, kernels.LARGEST_TILE, kernels.PER_WARP = shipped
    return result


def ceilings() -> dict[str, float]:
    """Operations and bytes (read and written) a second that this device reaches."""
    matrix, large = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16), torch.randn(2**29, device="cuda")
    rate = 2e3 * 8192**3 / milliseconds(lambda: matrix @ matrix, "cuda")
    return {"operations": rate, "bytes": 2e3 * large.nbytes / milliseconds(lambda: large.clone(), "cuda")}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sweep", action="store_true")
    arguments.add_argument("--out", type=Path)
    arguments.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    given = arguments.parse_args()
    device, shapes = given.device, SHAPES[given.device]
    cases = list(product(TOLERANCE, (1, 3, 16), (None, 30.0), (0, 5)))
    result: dict = {"environment": environment()}
    result["parity"] = {
        f"{str(dtype).removeprefix('torch.')}, bag {bag}, cap {cap}, padding {padding}": {"tolerance": TOLERANCE[dtype]}
        | errors(dtype, bag, cap, padding, device)
        for dtype, bag, cap, padding in cases
    }
    if device == "cuda":
        result |= {"device": torch.cuda.get_device_name(), "ceilings": ceilings()}
        result["spent"] = {name: spent(shape) for name, shape in shapes.items()}
    result["compare"] = {name: compare(shape, device) for name, shape in shapes.items()}
    if given.sweep:
        result["sweep"] = {name: sweep(shape, device) for name, shape in shapes.items()}
    if given.out:
        write_json(given.out, result)
    show(result, shapes)
    sys.exit(0 if all(map(is_right, result["parity"].values())) else 1)


def is_right(found: dict) -> bool:
    return found["same twice"] and max(found[name] for name in NAMES) < found["tolerance"]


def show(result: dict, shapes: dict[str, tuple[int, int, int]]) -> None:
    print("\nrelative errors")
    for name, found in result["parity"].items():
        distances = "  ".join(f"{key} {found[key]:.1e}" for key in NAMES)
        print(f"  {'ok   ' if is_right(found) else 'WRONG'} {name:40} {distances}")
    for name, (positions, width, vocab) in shapes.items():
        print(f"\n{name}: [{positions}, {width}] x [{vocab}, {width}]")
        if "ceilings" in result:
            product_ms = 2e3 * positions * width * vocab / result["ceilings"]["operations"]
            print(f"one product at the ceiling takes {product_ms:.2f} ms; forward needs 1 of it, both passes 3")
            for kernel, taken in result["spent"][name].items():
                print(f"  {taken:8.3f} ms  {kernel}")
        for way, found in (result["compare"][name] | result.get("sweep", {}).get(name, {})).items():
            peak = f"{found['peak MiB']:8.0f} MiB" if "peak MiB" in found else ""
            print(
                f"  {way:28} forward {found['forward']:8.3f} ms  both {found['both']:8.3f} ms {peak}"
                f"  loss {found['value']:.5f}  first {found['first seconds']:.1f} s"
            )


if __name__ == "__main__":
    main()
