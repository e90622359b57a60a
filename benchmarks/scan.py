"""How fast is the gated scan, beside fla's and beside attention, and is it right?

    python benchmarks/scan.py [--fla] [--out FILE.json] [--device cpu]

Values and gradients against the naive form in fp64; then medians of event times, with the cache swept between calls,
of 6 heads of 128 channels in bf16, decays in fp32; then what each kernel takes. fla tunes itself for minutes, so it
takes part when asked to. On a processor: the same in Triton's interpreter, tiny. `scan_grid.py` cuts the kernels' work
in other ways.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

if "cpu" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.ops.gla import Backend, fla, gla, reset_at_documents
from lilliput.ops.gla import triton as kernels
from lilliput.ops.gla.triton_tiles import Tiles

HEADS, CHANNELS = 6, 128
FIRST_CALL = """
import json, time, torch
q, k, v = (torch.randn(2, 256, 6, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
g = (-torch.rand(2, 256, 6, 128, device="cuda")).requires_grad_()
(q * k).sum().backward()
torch.cuda.synchronize()
began = time.perf_counter()
from lilliput.ops.gla import Backend, gla
outputs, _ = gla(q, k, v, g, None, Backend.TRITON)
torch.cuda.synchronize()
forward = time.perf_counter() - began
outputs.sum().backward()
torch.cuda.synchronize()
print(json.dumps([forward, time.perf_counter() - began]))
"""


def draw(rows: int, length: int, dtype: torch.dtype, device: str, *, steepness: float = 1.0, heads: int = HEADS):
    """q, k, v and gates z, as HGRN2 has them after a while of training: some channels keep, some forget."""
    generator = torch.Generator(device).manual_seed(length)
    width = CHANNELS if device == "cuda" else 16
    q, v, z = (torch.randn(rows, length, heads, width, generator=generator, device=device) for _ in range(3))
    horizons = torch.linspace(-1, 5, width, device=device)
    return q.to(dtype), torch.sigmoid(-z * steepness).to(dtype), v.to(dtype), (z + horizons) * steepness


@dataclass(frozen=True)
class Case:
    name: str
    dtype: torch.dtype
    length: int
    steepness: float = 1.0
    documents: bool = False
    constant: float | None = None
    """A log decay that every position has."""


def cases(device: str) -> list[Case]:
    on_gpu = device == "cuda"
    found = []
    for dtype in (torch.float32, torch.float16, *([torch.bfloat16] if on_gpu else [])):
        name = str(dtype).removeprefix("torch.")
        found += [
            Case(f"{name}, odd length", dtype, 333 if on_gpu else 37),
            Case(f"{name}, steep", dtype, 192 if on_gpu else 32, steepness=20.0),
            Case(f"{name}, documents", dtype, 301 if on_gpu else 40, documents=True),
            Case(f"{name}, e^-20 everywhere", dtype, 130 if on_gpu else 20, constant=-20.0),
            Case(f"{name}, shorter than a chunk", dtype, 17),
        ]
    return found


TOLERANCE = {torch.float32: 1e-4, torch.float16: 3e-3, torch.bfloat16: 2e-2}


def is_right(found: dict[str, float], case: Case) -> bool:
    """Whether these are the errors that rounding makes; not a number is wrong."""
    return all(error < TOLERANCE[case.dtype] for error in found.values())


def errors(case: Case, device: str) -> dict[str, float]:
    """||a - b|| / ||b|| of the outputs, the state and every gradient."""
    q, k, v, z = draw(2, case.length, case.dtype, device, steepness=case.steepness, heads=3)
    state = torch.randn(2, 3, q.shape[-1], v.shape[-1], device=device)
    document_ids = torch.arange(case.length, device=device).div(100 if device == "cuda" else 13, rounding_mode="floor")

    def run(backend: Backend, dtype: torch.dtype, wide: torch.dtype) -> list[Tensor]:
        leaves = [x.detach().to(dtype).requires_grad_() for x in (q, k, v)]
        leaves += [x.detach().to(wide).requires_grad_() for x in (z, state)]
        log_decay = F.logsigmoid(leaves[3])
        if case.constant is not None:
            log_decay = log_decay * 0 + case.constant
        if case.documents:
            log_decay = reset_at_documents(log_decay, document_ids.expand(2, -1))
        log_decay.retain_grad()
        outputs, after = gla(*leaves[:3], log_decay, leaves[4], backend)
        weights = torch.linspace(-1, 1, outputs.numel(), dtype=torch.float64, device=device).view_as(outputs)
        loss = (outputs.double() * weights).sum() + after.double().square().sum()
        return [outputs.detach(), after.detach(), *torch.autograd.grad(loss, [*leaves[:3], log_decay, leaves[4]])]

    found = run(Backend.TRITON, case.dtype, torch.float32)
    exact = run(Backend.REFERENCE, torch.float64, torch.float64)
    names = ("o", "S", "dq", "dk", "dv", "dg", "dS")
    # What e^-20 leaves of dg and dS is nothing beside dk.
    least = float(exact[3].norm()) if case.constant is not None else 1e-30
    distances = [(a.double() - b).norm() / b.norm().clamp(min=least) for a, b in zip(found, exact, strict=True)]
    return {name: float(distance) for name, distance in zip(names, distances, strict=True)}


@dataclass
class Clock:
    """Medians of times of calls, each of which finds a cold L2 cache."""

    device: str
    repeats: int = 20
    sweep: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.sweep = torch.empty(2**28 if self.device == "cuda" else 1, dtype=torch.int8, device=self.device)

    def milliseconds(self, call: Callable[[], object]) -> float:
        if self.device != "cuda":
            began = time.perf_counter()
            call()
            return 1e3 * (time.perf_counter() - began)
        for _ in range(3):
            call()
        pairs = []
        for _ in range(self.repeats):
            self.sweep.zero_()
            pairs.append([torch.cuda.Event(enable_timing=True) for _ in range(2)])
            pairs[-1][0].record()
            call()
            pairs[-1][1].record()
        torch.cuda.synchronize()
        return statistics.median(a.elapsed_time(b) for a, b in pairs)


def competitors(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, with_fla: bool
) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """Each as a function of the same leaves."""
    yield "lilliput", lambda: gla(q, k, v, log_decay, None, Backend.TRITON)[0]
    if q.device.type != "cuda":
        return
    for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):

        def attend(backend: SDPBackend = backend) -> Tensor:
            with sdpa_kernel(backend):
                heads_first = (x.transpose(1, 2) for x in (q, k, v))
                return F.scaled_dot_product_attention(*heads_first, is_causal=True)

        yield f"SDPA {name}", attend
    if with_fla:
        yield "fla chunk_gla", lambda: gla(q, k, v, log_decay, None, Backend.FLA)[0]


def compare(shape: tuple[int, int], clock: Clock, with_fla: bool) -> dict[str, dict[str, float]]:
    """Milliseconds forward, and forward and backward, of everybody at one shape."""
    dtype = torch.bfloat16 if clock.device == "cuda" else torch.float16
    q, k, v, z = draw(*shape, dtype, clock.device)
    leaves = [x.requires_grad_() for x in (q, k, v, F.logsigmoid(z))]
    result = {}
    for name, call in competitors(*leaves, with_fla):
        began = time.perf_counter()
        try:
            outputs = call()
            grad = torch.randn_like(outputs)
            used = leaves if "SDPA" not in name else leaves[:3]

            def both(call: Callable = call, used: list = used, grad: Tensor = grad) -> object:
                return torch.autograd.grad(call(), used, grad)

            both()
            first = time.perf_counter() - began
            with torch.no_grad():
                forward = clock.milliseconds(call)
            together = clock.milliseconds(both)
            result[name] = {"forward": forward, "both": together, "first_seconds": first}
            print(f"{shape} {name:16} forward {forward:7.3f} ms   both {together:7.3f} ms   first {first:6.1f} s")
        except RuntimeError as error:
            print(name, "failed:", str(error).splitlines()[0])
    return result


@contextmanager
def cut_as(tiles: Tiles | None) -> Iterator[None]:
    """The kernels' work is cut so, or as shipped."""
    shipped = kernels.tiles_for
    kernels.tiles_for = shipped if tiles is None else lambda *_: tiles
    try:
        yield
    finally:
        kernels.tiles_for = shipped


def one_by_one(shape: tuple[int, int], clock: Clock, only: str = "") -> dict[str, float]:
    """Milliseconds of each launch of a forward and backward pass, or of those whose name begins so."""
    dtype = torch.bfloat16 if clock.device == "cuda" else torch.float16
    q, k, v, z = draw(*shape, dtype, clock.device)
    log_decay, grad_outputs = F.logsigmoid(z), torch.randn_like(v)
    launch = kernels.Launches(q, v)
    outputs, after, scores = kernels._empty(q, v)
    grad_q, grad_k, grad_v, grad_decay, grad_state = kernels._empty_gradients(q, k, v, log_decay)
    received = v.new_empty(shape[0], HEADS, launch.chunks, launch.K, launch.V).normal_()
    scores.normal_()
    calls = {
        "states": lambda: launch.states(k, v, log_decay, None, after, reverse=False),
        "outputs": lambda: launch.outputs(q, k, v, log_decay, received, scores, outputs, reverse=False),
        "states, reverse": lambda: launch.states(q, grad_outputs, log_decay, None, grad_state, reverse=True),
        "outputs, reverse": lambda: launch.outputs(
            q, k, grad_outputs, log_decay, received, scores, grad_v, reverse=True
        ),
        "gradients": lambda: launch.gradients(
            q, k, v, log_decay, received, received, grad_outputs, grad_q, grad_k, grad_decay
        ),
    }
    return {name: clock.milliseconds(call) for name, call in calls.items() if name.startswith(only)}


def first_call() -> list[float]:
    """Seconds of a new process, with nothing compiled before, to the first outputs and the first gradients."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-c", FIRST_CALL]
        settings = os.environ | {"TRITON_CACHE_DIR": cache, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        finished = subprocess.run(command, capture_output=True, text=True, env=settings)
    if finished.returncode:
        print(finished.stderr[-2000:])
        return []
    return json.loads(finished.stdout)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--fla", action="store_true")
    arguments.add_argument("--out", type=Path)
    arguments.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    given = arguments.parse_args()
    if given.fla:
        fla.require(torch.device(given.device))  # now, not when the rest is measured
    began = time.perf_counter()
    clock = Clock(given.device)
    on_gpu = given.device == "cuda"
    shapes = [(32, 2048), (8, 8192)] if on_gpu else [(1, 64)]

    shipped = kernels.tiles_for(torch.bfloat16, torch.device(given.device))
    result: dict = {"environment": environment(), "tiles": str(shipped), "parity": {}, "kernels": {}, "compare": {}}
    if given.fla:
        result["fla-core"] = version("fla-core")
    print("shipped:", shipped)
    if on_gpu:
        result["device"] = torch.cuda.get_device_name()
        result["first_call_seconds"] = first_call()
        print("first call, cold [s]:", result["first_call_seconds"])
    for case in cases(given.device):
        result["parity"][case.name] = found = errors(case, given.device)
        verdict = "ok   " if is_right(found, case) else "WRONG"
        print(f"{verdict} {case.name:32}", "  ".join(f"{what} {e:.1e}" for what, e in found.items()), flush=True)
    for shape in shapes:
        result["kernels"][str(shape)] = times = one_by_one(shape, clock)
        print(f"{shape} kernels [ms]:", "  ".join(f"{name} {time:.3f}" for name, time in times.items()), flush=True)
        result["compare"][str(shape)] = compare(shape, clock, given.fla)
    result["seconds"] = time.perf_counter() - began
    if given.out:
        write_json(given.out, result)


if __name__ == "__main__":
    main()
