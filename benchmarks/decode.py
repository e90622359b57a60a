"""How many tokens a second does the engine write, beside transformers and llama.cpp?

    python benchmarks/decode.py [RECIPE...] [--dtype fp32] [--contexts 0 1536] [--batch 1] [--device cpu]
                                [--tokens 32] [--repeats 3] [--threads N] [--compile] [--ours] [--narrow]
                                [--out FILE.json]

Models of the recipes with random weights, `odinnext-138m` and `slm-10m` unless others are named. Each row has read
`context` tokens, or one; then `tokens` greedy ones of each row are timed, contexts by turns, and the best of `repeats`
counts, as other processes only ever take time away. Transformers is asked through `forward` with its cache, in a plain
loop, which is less work than `generate`. llama.cpp is asked where llama-cpp-python is installed, on a processor, for
one row of a model that a GGUF file can hold; with F16 weights, or Q8_0 for int8. Transformers has no int8: it is asked
with weights in fp32 then. Each is named with the precision of its weights. --ours leaves both out.

--narrow makes the model as narrow as a rehearsal's, with its number of layers: there is next to nothing to compute, and
what its token takes is Python, calls of kernels, and the waits of threads for each other.
"""

import argparse
import math
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from decode_llama_cpp import Writer, llama_cpp_writer
from rich.console import Console
from rich.table import Table
from torch import nn

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.generate.engine import Engine
from lilliput.generate.request import Request
from lilliput.generate.sampling import Sampling
from lilliput.model import LanguageModel, ModelSpec
from lilliput.publish.export import Generation, export
from lilliput.publish.gguf.architectures import ARCHITECTURES
from lilliput.publish.gguf.file_types import FileType
from lilliput.publish.gguf.write import About, write_gguf
from lilliput.publish.hf_formats.format import HFFormat
from lilliput.recipe import Release, load_recipe
from lilliput.shrink import shrink
from lilliput.tokenizer.bpe import BPE
from lilliput.train.machine import inference_device

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}


def theirs(spec: ModelSpec, layout: HFFormat) -> nn.Module:
    """The same architecture as transformers has it, with weights of its own."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with TemporaryDirectory() as name:
        folder = Path(name)
        write_json(folder / "config.json", layout.config(spec))
        for file in layout.remote_files:
            (folder / file.name).write_bytes(file.read_bytes())
        code = bool(layout.remote_files)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=code)
        return AutoModelForCausalLM.from_config(config, trust_remote_code=code)


def prompts(vocab: int, context: int, batch: int) -> torch.Tensor:
    return torch.randint(vocab, (batch, max(1, context)), generator=torch.Generator().manual_seed(context))


def our_writer(spec: ModelSpec, given: argparse.Namespace) -> Writer:
    """The engine, which has read every context, compiled its step and captured graphs of it."""
    model = spec.build(seed=0).eval().to(given.device, DTYPES[given.dtype])
    engine = Engine(model, rows=given.batch, compile=given.compile, int8=given.dtype == "int8")
    read = {
        context: [engine.read(row.tolist()) for row in prompts(spec.vocab, context, given.batch)]
        for context in given.contexts
    }

    def write(context: int, tokens: int) -> float:
        greedy = Sampling(greedy=True)
        for prefix in read[context]:
            engine.add(Request(prompt=prefix.tokens, max_new_tokens=tokens + 2, sampling=greedy, prefix=prefix))
        engine.step()
        began = time.perf_counter()
        written = sum(len(engine.step()) for _ in range(tokens))
        seconds = time.perf_counter() - began
        assert written == given.batch * tokens
        while not engine.is_idle:
            engine.step()
        return seconds

    for context in read:
        write(context, given.tokens)
    return write


def their_writer(model: Any, vocab: int, batch: int) -> Writer:
    """Calls of transformers with a cache, each followed by the choice of the likeliest token."""
    device = next(model.parameters()).device

    @torch.inference_mode()
    def write(context: int, tokens: int) -> float:
        step = model(prompts(vocab, context, batch).to(device), use_cache=True, logits_to_keep=1)
        last = step.logits[:, -1:].argmax(dim=-1)
        began = time.perf_counter()
        for _ in range(tokens):
            step = model(last, past_key_values=step.past_key_values, use_cache=True)
            last = step.logits[:, -1:].argmax(dim=-1)
            last.tolist()
        return time.perf_counter() - began

    return write


def dtype_name(model: nn.Module) -> str:
    """The name of the dtype that a model's weights have, whatever was asked for."""
    return next(name for name, dtype in DTYPES.items() if dtype == next(model.parameters()).dtype)


def no_llama_cpp(layout: HFFormat, given: argparse.Namespace) -> str | None:
    """Return the reason for which llama.cpp is not asked; None if it is."""
    if type(layout) not in ARCHITECTURES:
        return f"no GGUF file holds a {type(layout).__name__}"
    if given.device != "cpu" or given.batch > 1:
        return "it is asked for one row on a processor"
    return None if find_spec("llama_cpp") else "llama-cpp-python is not installed"


def llama_cpp_of(model: LanguageModel, layout: HFFormat, file_type: FileType) -> Writer:
    """llama.cpp with the weights of a model."""
    with TemporaryDirectory() as name:
        file = write_file(model, layout, file_type, Path(name))
        return llama_cpp_writer(file, torch.get_num_threads())  # it has mapped the file, which may go


def write_file(model: LanguageModel, layout: HFFormat, file_type: FileType, folder: Path) -> Path:
    """A GGUF file of a model, with a tokenizer of this script's own text, for ids are all that is asked."""
    tokenizer = BPE(vocab=model.spec.vocab, at_most=True).train([__doc__ or ""])
    export(model, tokenizer, folder, layout=layout, dtype="F32", generation=Generation(), chat_template=None)
    write_gguf(folder, folder / "model.gguf", file_type, About(name="decode"))
    return folder / "model.gguf"


def writers_of(name: str, given: argparse.Namespace) -> dict[str, Writer]:
    """Who writes with the model of a recipe, each by its name and the precision of its weights."""
    recipe = load_recipe(name)
    spec = recipe.model.shape
    if given.narrow:
        spec = replace(shrink(recipe).model.shape, layers=spec.layers)
    layout = next(entry.layout for entry in recipe.timeline if isinstance(entry, Release))
    writers = {f"ours, {given.dtype}": our_writer(spec, given)}
    if given.ours:
        return writers
    their = theirs(spec, layout).eval().to(given.device, DTYPES[given.dtype])
    writers[f"transformers, {dtype_name(their)}"] = their_writer(their, spec.vocab, given.batch)
    if refused := no_llama_cpp(layout, given):
        print(f"{name}: llama.cpp is not asked: {refused}")
    else:
        file_type: FileType = "Q8_0" if given.dtype == "int8" else "F16"
        writers[f"llama.cpp, {file_type}"] = llama_cpp_of(spec.build(seed=0).eval(), layout, file_type)
    return writers


def measured(name: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Tokens a second of everyone after each context."""
    writers = writers_of(name, given)
    seconds: dict[int, dict[str, float]] = {context: dict.fromkeys(writers, math.inf) for context in given.contexts}
    for _ in range(given.repeats):  # contexts take turns: what else the machine does changes from minute to minute
        for context, best in seconds.items():
            for writer, write in writers.items():
                best[writer] = min(best[writer], write(context, given.tokens))
    work = given.batch * given.tokens
    return [
        {"recipe": name, "context": context} | {writer: round(work / best[writer], 1) for writer in writers}
        for context, best in seconds.items()
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("recipes", nargs="*", default=["odinnext-138m", "slm-10m"])
    arguments.add_argument("--dtype", default="fp32", choices=DTYPES)
    arguments.add_argument("--contexts", type=int, nargs="+", default=[0, 1536])
    arguments.add_argument("--batch", type=int, default=1)
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--tokens", type=int, default=32)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--threads", type=int, help="of a processor")
    arguments.add_argument("--narrow", action="store_true")
    arguments.add_argument("--compile", action="store_true", help="the step of ours")
    arguments.add_argument("--ours", action="store_true")
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    given.device = inference_device(given.device)
    if given.threads:
        torch.set_num_threads(given.threads)
    given.threads = torch.get_num_threads()
    rows = [row for name in given.recipes for row in measured(name, given)]
    writers = [name for name in dict.fromkeys(chain(*rows)) if name not in ("recipe", "context")]
    table = Table("recipe", "context", *(f"{name}, tokens/s" for name in writers))
    for row in rows:
        speeds = (f"{row[name]:,.1f}" if name in row else "" for name in writers)
        table.add_row(row["recipe"], f"{row['context']:,}", *speeds)
    Console(file=sys.stdout).print(table)
    if given.out:
        asked = ("dtype", "batch", "device", "tokens", "repeats", "threads", "compile", "narrow")
        settings = {name: getattr(given, name) for name in asked}
        write_json(given.out, settings | {"rows": rows, "environment": environment()})


if __name__ == "__main__":
    main()
