"""How much memory does generation take, and how does it grow with the text?

    python benchmarks/decode_memory.py [RECIPE...] [--contexts 128 1024 4096 16384] [--rows 1] [--dtype bf16]
                                       [--device cuda] [--out FILE.json] [--png FILE.png]

Models of the recipes with random weights, `odinnext-138m` and `mtlm1-200m` unless others are named. An engine reads
`context` tokens in chunks and writes eight; the bytes of its states, and the most memory that generation took beside
the weights: what PyTorch handed out on CUDA, the growth of the process on Linux elsewhere. What attention was trained
for is not asked. Each measurement has a process of its own.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from lilliput.base.environment import environment
from lilliput.base.files import write_bytes, write_json
from lilliput.generate.engine import Engine
from lilliput.generate.request import Request
from lilliput.generate.sampling import Sampling
from lilliput.recipe import load_recipe
from lilliput.report.chart_png import chart_png
from lilliput.report.charts import Axis, Chart, Series

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WRITTEN = 8
MIB = 2**20


def measured(name: str, context: int, given: argparse.Namespace) -> dict[str, Any]:
    """Bytes of an engine's states, and its peak on CUDA, once a context is read and continued."""
    spec = load_recipe(name).model.shape
    model = spec.build(seed=0).eval().to(given.device, DTYPES[given.dtype])
    engine = Engine(model, rows=given.rows)
    text = torch.randint(spec.vocab, (context,), generator=torch.Generator().manual_seed(0)).tolist()
    for _ in range(given.rows):
        engine.add(Request(prompt=text, max_new_tokens=WRITTEN, sampling=Sampling(greedy=True)))
    before = _in_use(given.device)
    while not engine.is_idle:
        engine.step()
    states = sum(tensor.nbytes for layer in engine._states.layers for tensor in layer.values()) / MIB
    peak = (_most_in_use(given.device) - before) / MIB
    return {"recipe": name, "context": context, "states_mib": round(states, 2), "peak_mib": round(peak, 1)}


def _in_use(device: str) -> int:
    """Return the bytes in use, from which on the most is looked for."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return _most_in_use(device)


def _most_in_use(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def chart(found: list[dict[str, Any]]) -> Chart:
    """States and peak of each recipe over the context."""
    names = list(dict.fromkeys(one["recipe"] for one in found))
    series = []
    for color, name in enumerate(names):
        own = [one for one in found if one["recipe"] == name]
        x = [float(one["context"]) for one in own]
        series.append(
            Series(name=f"{name}, states", x=x, y=[one["states_mib"] for one in own], color=color, style="dots")
        )
        series.append(Series(name=f"{name}, peak", x=x, y=[one["peak_mib"] for one in own], color=color))
    across = Axis(label="tokens of context", logarithmic=True)
    down = Axis(label="MiB beside the weights", logarithmic=True)
    return Chart(key="memory", title="Memory of one text", x=across, y=down, series=series)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("recipes", nargs="*", default=["odinnext-138m", "mtlm1-200m"])
    options.add_argument("--contexts", type=int, nargs="+", default=[128, 1024, 4096, 16384])
    options.add_argument("--rows", type=int, default=1)
    options.add_argument("--dtype", default="bf16", choices=DTYPES)
    options.add_argument("--device", default="cuda")
    options.add_argument("--out", type=Path)
    options.add_argument("--png", type=Path)
    given = options.parse_args()
    found = []
    for name in given.recipes:
        for context in given.contexts:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                found.append(process.submit(measured, name, context, given).result())
            print(found[-1], flush=True)
    if given.out:
        write_json(given.out, {"rows": given.rows, "dtype": given.dtype, "found": found, "environment": environment()})
    if given.png:
        write_bytes(given.png, chart_png(chart(found), 1200, 750))


if __name__ == "__main__":
    main()
