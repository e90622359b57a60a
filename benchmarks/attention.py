"""How fast is attention, with documents and without, beside PyTorch's fused and flexible ones, and is it right?

    python benchmarks/attention.py [--grid] [--out FILE.json] [--device cpu]

Values and gradients against the naive form in fp64, twice to the bit; then medians of event times in bf16 at the shapes
of SLM-10M and of the 194 M Llama, whole rows and documents of 700 positions on average; with --grid each kernel under
other cuts of its work, in documents. On a processor: the same in Triton's interpreter, tiny.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

if "cpu" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.ops import tile_cache
from lilliput.ops.sdpa import Backend, sdpa
from lilliput.ops.sdpa import triton as kernels
from lilliput.ops.sdpa.triton_tiles import Tile, name_of, tiles_for

SHAPES = {
    "cuda": {"SLM-10M": (128, 1024, 8, 2, 32), "Llama 194 M": (16, 2048, 12, 12, 64)},
    "cpu": {"tiny": (2, 96, 4, 2, 16)},
}
"""Rows, length, query heads, key heads, width."""
TOLERANCE = {torch.float32: 1e-4, torch.float16: 3e-3, torch.bfloat16: 2e-2}
DOCUMENT = 700


def draw(shape: tuple[int, ...], dtype: torch.dtype, device: str, document: int) -> tuple[list[Tensor], Tensor]:
    """q, k, v as slices of one projection, and document numbers."""
    rows, length, heads, shared, width = shape
    generator = torch.Generator(device).manual_seed(length)
    whole = torch.randn(rows, length, heads + 2 * shared, width, generator=generator, device=device).to(dtype)
    begins = torch.rand(rows, length, generator=generator, device=device) < 1 / document
    return [x.requires_grad_() for x in whole.split([heads, shared, shared], dim=2)], begins.cumsum(
        1, dtype=torch.int32
    )


def errors(dtype: torch.dtype, shape: tuple[int, ...], documents: bool, cap: float | None, device: str) -> dict:
    """||a - b|| / ||b|| of the outputs and every gradient, and whether a second run is equal to the bit."""
    inputs, document_ids = draw(shape, dtype, device, shape[1] // 5)

    def run(backend: Backend, dtype: torch.dtype) -> list[Tensor]:
        leaves = [x.detach().to(dtype).requires_grad_() for x in inputs]
        outputs = sdpa(*leaves, document_ids if documents else None, cap, backend)
        weights = torch.linspace(-1, 1, outputs.numel(), dtype=torch.float64, device=device).view_as(outputs)
        return [outputs.detach(), *torch.autograd.grad((outputs.double() * weights).sum(), leaves)]

    ones, others, exact = run(Backend.TRITON, dtype), run(Backend.TRITON, dtype), run(Backend.REFERENCE, torch.float64)
    found = {
        name: float((one.double() - right).norm() / right.norm())
        for name, one, right in zip(("outputs", "dq", "dk", "dv"), ones, exact, strict=True)
    }
    return found | {"same twice": all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))}


def check(device: str) -> bool:
    """Whether the kernels are right at the shapes' widths; the tests have more cases."""
    dtype, right = torch.bfloat16 if device == "cuda" else torch.float16, True
    for shape, documents in product(SHAPES[device].values(), (False, True)):
        found = errors(dtype, (2, 513 if device == "cuda" else 70, *shape[2:]), documents, None, device)
        fine = found.pop("same twice") and all(error < TOLERANCE[dtype] for error in found.values())
        right &= fine
        if not fine:
            print(f"WRONG width {shape[-1]} documents {documents}: {found}")
    print("parity:", "every case right" if right else "wrong", flush=True)
    return right


def milliseconds(run: Callable[[], Any], device: str, repeats: int = 10) -> float:
    if device == "cpu":
        run()
        return 0.0
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def both(forward: Callable[..., Tensor], inputs: list[Tensor], device: str) -> tuple[float, float]:
    """Milliseconds of forward, and of forward and backward."""
    grad = torch.randn_like(forward(*inputs))

    def run() -> None:
        torch.autograd.grad(forward(*inputs), inputs, grad)

    with torch.no_grad():
        alone = milliseconds(lambda: forward(*inputs), device)
    return alone, milliseconds(run, device)


def contenders(document_ids: Tensor, length: int):
    yield "lilliput", lambda q, k, v: sdpa(q, k, v, None, None, Backend.TRITON)
    yield "lilliput, documents", lambda q, k, v: sdpa(q, k, v, document_ids, None, Backend.TRITON)
    if not document_ids.is_cuda:
        return

    def torch_sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)

    for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):

        def chosen(q: Tensor, k: Tensor, v: Tensor, backend: SDPBackend = backend) -> Tensor:
            with sdpa_kernel(backend):
                return torch_sdpa(q, k, v)

        yield f"sdpa, {name}", chosen
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def same(b, h, i, j):
        return (i >= j) & (document_ids[b, i] == document_ids[b, j])

    mask = create_block_mask(same, len(document_ids), None, length, length, device=document_ids.device)
    compiled = torch.compile(flex_attention, dynamic=False)
    yield (
        "flex, documents",
        lambda q, k, v: compiled(*(x.transpose(1, 2) for x in (q, k, v)), block_mask=mask, enable_gqa=True).transpose(
            1, 2
        ),
    )


CUTS: dict[str, list[tuple[int | None, ...]]] = {
    "outputs": [
        (64, 64, 4, 3),
        (64, 64, 4, 2),
        (64, 64, 4, 2, 96),
        (64, 64, 4, 2, 128),
        (64, 64, 4, 3, 128),
        (64, 32, 4, 3),
        (128, 64, 8, 3),
        (128, 64, 4, 3),
        (32, 32, 2, 2),
        (64, 32, 2, 3),
    ],
    "grad_queries": [
        (64, 64, 4, 3),
        (64, 64, 4, 2),
        (64, 64, 4, 2, 128),
        (64, 64, 4, 2, 96),
        (64, 64, 4, 1, 128),
        (64, 32, 4, 3),
        (128, 64, 8, 1),
        (128, 64, 8, 2, 128),
        (32, 32, 2, 2),
        (64, 32, 2, 2),
    ],
    "grad_keys": [
        (64, 64, 4, 1),
        (64, 64, 4, 1, 168),
        (64, 64, 4, 1, 128),
        (64, 64, 4, 2, 168),
        (64, 64, 4, 2, 128),
        (32, 64, 4, 1),
        (32, 64, 4, 1, 128),
        (32, 64, 4, 1, 96),
        (32, 64, 4, 2, 128),
        (32, 128, 8, 1),
        (64, 128, 8, 1, 128),
        (32, 32, 2, 2),
        (32, 64, 2, 1),
    ],
}
"""Tiles to try: queries, keys, warps, stages, and registers of a thread where not the compiler's choice. Four warps
wait for each of their products, which are Hopper's; two do not, with slower ones."""


def grid(inputs: list[Tensor], document_ids: Tensor, device: str) -> list[tuple[str, tuple[int | None, ...], float]]:
    """Milliseconds of every kernel under other tiles, in documents; those that are wrong or do not fit are said and
    left out."""
    q, k, v = (x.detach() for x in inputs)
    outputs, sums = kernels.sdpa_forward(q, k, v, document_ids, None)
    grad = torch.randn_like(outputs)
    gradients = kernels.sdpa_backward(q, k, v, document_ids, None, outputs, sums, grad)
    original, shipped, found = kernels.tiles_for, tiles_for(q.dtype, q.shape[-1]), []
    for name, cuts in CUTS.items():
        for cut in cuts:
            kernels.tiles_for = lambda *_, name=name, cut=cut: shipped._replace(**{name: Tile(*cut)})
            try:
                made = kernels.sdpa_forward(q, k, v, document_ids, None)[:1]
                if name != "outputs":
                    made = kernels.sdpa_backward(q, k, v, document_ids, None, outputs, sums, grad)
                right = (outputs,) if name == "outputs" else gradients
                pairs = zip(made, right, strict=True)
                if max(float((a.float() - b.float()).norm() / b.float().norm()) for a, b in pairs) > 1e-2:
                    print("    wrong:", name, cut)
                    continue
                found.append(
                    (name, cut, round(kernel_milliseconds(name, q, k, v, document_ids, outputs, sums, grad), 3))
                )
            except Exception as error:  # noqa: BLE001: too much shared memory, mostly
                print("    refused:", name, cut, str(error)[:60])
    kernels.tiles_for = original
    return sorted(found, key=lambda item: (item[0], item[2]))


def kernel_milliseconds(name: str, *tensors: Tensor) -> float:
    """Of one kernel alone, by the profiler."""
    q, k, v, document_ids, outputs, sums, grad = tensors
    if not q.is_cuda:
        return 0.0
    with torch.profiler.profile() as profiler:
        for _ in range(5):
            if name == "outputs":
                kernels.sdpa_forward(q, k, v, document_ids, None)
            else:
                kernels.sdpa_backward(q, k, v, document_ids, None, outputs, sums, grad)
        torch.cuda.synchronize()
    times = [event.device_time / 1e3 for event in profiler.events() or () if event.name.startswith(f"{name}_kernel")]
    return statistics.median(times)


def warm(shape: tuple[int, ...]) -> None:
    """Compile what the grid is about to try, several at a time: what one process compiles, others find on disk."""
    heads = [str(shape[-1]), str(shape[2] // shape[3])]
    commands = [
        [sys.executable, __file__, "--compile", name, *map(str, cut), *heads]
        for name, cuts in CUTS.items()
        for cut in cuts
    ]
    with ThreadPoolExecutor(os.cpu_count()) as several:
        list(several.map(subprocess.run, commands))


def compile_one(name: str, *numbers: int) -> None:
    *cut, width, group = numbers
    shipped = tiles_for(torch.bfloat16, width)
    kernels.tiles_for = lambda *_: shipped._replace(**{name: Tile(*cut)})
    inputs, document_ids = draw((1, 256, 2 * group, 2, width), torch.bfloat16, "cuda", DOCUMENT)
    with contextlib.suppress(Exception):  # the grid says what does not fit
        outputs, sums = kernels.sdpa_forward(*inputs, document_ids, None)
        if name != "outputs":
            kernels.sdpa_backward(*inputs, document_ids, None, outputs, sums, torch.ones_like(outputs))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--grid", action="store_true")
    options.add_argument("--keep", action="store_true", help='the fastest tiles, for Machine(tiles="tuned") here')
    options.add_argument("--device", default="cuda")
    options.add_argument("--out", type=Path)
    options.add_argument("--compile", nargs="+", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.keep and not chosen.grid:
        options.error("--keep is of what --grid finds")
    if chosen.compile:
        compile_one(chosen.compile[0], *map(int, chosen.compile[1:]))
        return
    device = chosen.device
    results: dict[str, Any] = {"parity": check(device)}
    dtype = torch.bfloat16 if device == "cuda" else torch.float16
    for name, shape in SHAPES[device].items():
        inputs, document_ids = draw(shape, dtype, device, DOCUMENT)
        results[name] = {}
        for who, forward in contenders(document_ids, shape[1]):
            try:
                results[name][who] = [round(time, 3) for time in both(forward, inputs, device)]
                print(
                    f"{name:12} {who:24} forward {results[name][who][0]:7.3f} ms, both {results[name][who][1]:7.3f} ms"
                )
            except Exception as error:  # noqa: BLE001: a peer that does not run is said so, and the others do
                print(f"{name:12} {who:24} {type(error).__name__}: {str(error)[:80]}")
        if chosen.grid:
            if device == "cuda":
                warm(shape)
            results[name]["grid"] = grid(inputs, document_ids, device)
            for kernel, cut, time in results[name]["grid"]:
                print(f"    {kernel:14} {cut} {time:.3f} ms", flush=True)
            if chosen.keep:
                best = {kernel: Tile(*cut) for kernel, cut, _ in reversed(results[name]["grid"])}
                tiles = tiles_for(dtype, shape[-1])._replace(**best)
                print(f"    kept in {tile_cache.save(name_of(shape[-1]), tiles, device)}: {tiles}")
        if chosen.out:
            write_json(chosen.out, {"environment": environment(), "results": results})


if __name__ == "__main__":
    main()
