"""How much memory does generation take, and how does it grow with the text?

    python benchmarks/decode_memory.py [RECIPE...] [--contexts 128 1024 4096 16384] [--rows 1] [--dtype bf16]
                                       [--device cuda] [--out FILE.json] [--png FILE.png]

Models of the recipes with random weights, `odinnext-138m` and `slm-10m` unless others are named. An engine reads
`context` tokens in chunks and writes eight; the bytes of its states, and on CUDA the most memory that PyTorch handed
out beside the weights. What attention has room for is not asked: SLM-10M's context is 1,024.
"""

import argparse
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
    peak = None
    if given.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        weights = torch.cuda.memory_allocated()
    while not engine.is_idle:
        engine.step()
    if given.device == "cuda":
        peak = (torch.cuda.max_memory_allocated() - weights) / MIB
    states = sum(tensor.nbytes for layer in engine._states.layers for tensor in layer.values()) / MIB
    return {"recipe": name, "context": context, "states_mib": round(states, 2), "peak_mib": peak}


def chart(found: list[dict[str, Any]]) -> Chart:
    """States of each recipe over the context."""
    names = list(dict.fromkeys(one["recipe"] for one in found))
    series = []
    for color, name in enumerate(names):
        own = [one for one in found if one["recipe"] == name]
        x, y = [float(one["context"]) for one in own], [one["states_mib"] for one in own]
        series.append(Series(name=name, x=x, y=y, color=color, style="dots"))
    across = Axis(label="tokens of context", logarithmic=True)
    down = Axis(label="MiB of states", logarithmic=True)
    return Chart(key="memory", title="Memory of one text", x=across, y=down, series=series)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("recipes", nargs="*", default=["odinnext-138m", "slm-10m"])
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
            found.append(measured(name, context, given))
            print(found[-1], flush=True)
    if given.out:
        write_json(given.out, {"rows": given.rows, "dtype": given.dtype, "found": found, "environment": environment()})
    if given.png:
        write_bytes(given.png, chart_png(chart(found), 1200, 750))


if __name__ == "__main__":
    main()
