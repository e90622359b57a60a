"""How many tokens a second does the engine write on a processor, beside transformers and llama.cpp with one model?

    python benchmarks/decode_llama_cpp.py FOLDER FILE.gguf [--contexts 0 512] [--tokens 48] [--repeats 8] [--threads 2]
                                          [--out FILE.json]

FOLDER holds the model that FILE.gguf has: `benchmarks/gguf_llama.py` makes one of the other. The engine writes in fp16
and in 8 bits, compiled; transformers in fp32 and bf16; llama.cpp, of llama-cpp-python, which has to be installed, with
the weights as F16, Q8_0 and as they are in the file, rounded again by its own tool. All write one text greedily, by
turns; the fastest of the repetitions counts, as other processes only ever take time away.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import lilliput
from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.generate.engine import Engine
from lilliput.generate.request import Request
from lilliput.generate.sampling import Sampling

Writer = Callable[[int, int], float]
"""Seconds of so many tokens after a context of so many."""


def engine_writer(folder: str, dtype: str, threads: int) -> Writer:
    """The engine with weights of a dtype."""
    torch.set_num_threads(threads)
    model = lilliput.load(folder, device="cpu").module
    engine = Engine(model if dtype == "int8" else model.half(), compile=True, int8=dtype == "int8")
    read = {}

    def write(context: int, tokens: int) -> float:
        if context not in read:
            read[context] = engine.read([1 + index % 1000 for index in range(max(1, context))])
        prefix = read[context]
        greedy = Sampling(greedy=True)
        engine.add(Request(prompt=prefix.tokens, max_new_tokens=tokens + 2, sampling=greedy, prefix=prefix))
        engine.step()
        began = time.perf_counter()
        for _ in range(tokens):
            engine.step()
        seconds = time.perf_counter() - began
        while not engine.is_idle:
            engine.step()
        return seconds

    return write


def transformers_writer(folder: str, dtype: torch.dtype) -> Writer:
    """transformers, with the cache that its `generate` takes by itself."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    @torch.inference_mode()
    def write(context: int, tokens: int) -> float:
        made = model(torch.tensor([[1 + index % 1000 for index in range(max(1, context))]]), logits_to_keep=1)
        began = time.perf_counter()
        for _ in range(tokens):
            last = made.logits[:, -1].argmax(-1, keepdim=True)
            made = model(last, past_key_values=made.past_key_values, logits_to_keep=1)
        return time.perf_counter() - began

    return write


def llama_cpp_writer(file: Path, threads: int) -> Writer:
    """llama.cpp with a file's weights; its context is kept up to the place where writing begins."""
    from llama_cpp import Llama

    model = Llama(str(file), n_ctx=2048, n_threads=threads, n_threads_batch=threads, verbose=False)

    def write(context: int, tokens: int) -> float:
        model.reset()
        model.eval([1 + index % 1000 for index in range(max(1, context))])
        last = model.sample(temp=0.0)
        began = time.perf_counter()
        for _ in range(tokens):
            model.eval([last])
            last = model.sample(temp=0.0)
        return time.perf_counter() - began

    return write


def rounded(file: Path, kind: str, folder: Path) -> Path:
    """The weights of a file in another format of llama.cpp."""
    import llama_cpp

    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = {"F16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16, "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0}[kind]
    settings.allow_requantize = True
    made = folder / f"{kind}.gguf"
    if llama_cpp.llama_model_quantize(str(file).encode(), str(made).encode(), settings):
        raise SystemExit(f"{file} cannot be written as {kind}")
    return made


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder")
    options.add_argument("gguf", type=Path)
    options.add_argument("--contexts", type=int, nargs="+", default=[0, 512])
    options.add_argument("--tokens", type=int, default=48)
    options.add_argument("--repeats", type=int, default=8)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    with TemporaryDirectory() as temporary:
        files = {kind: rounded(given.gguf, kind, Path(temporary)) for kind in ("F16", "Q8_0")}
        writers = {f"engine, {dtype}": engine_writer(given.folder, dtype, given.threads) for dtype in ("fp16", "int8")}
        writers |= {
            f"transformers, {name}": transformers_writer(given.folder, dtype)
            for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
        }
        writers |= {f"llama.cpp, {kind}": llama_cpp_writer(file, given.threads) for kind, file in files.items()}
        writers["llama.cpp, as it is"] = llama_cpp_writer(given.gguf, given.threads)
        for write in writers.values():
            [write(context, given.tokens) for context in given.contexts]
        found: dict[str, dict[int, float]] = {name: {} for name in writers}
        for _ in range(given.repeats):
            for context in given.contexts:
                for name, write in writers.items():
                    speed = given.tokens / write(context, given.tokens)
                    found[name][context] = max(speed, found[name].get(context, 0.0))
    for name, speeds in found.items():
        print(f"{name:20}", "  ".join(f"{speed:7.1f} tokens/s at {context:,}" for context, speed in speeds.items()))
    if given.out:
        import llama_cpp

        asked = {"tokens": given.tokens, "repeats": given.repeats, "threads": given.threads}
        versions = environment() | {"llama_cpp_python": llama_cpp.__version__}
        write_json(given.out, {"model": given.gguf.name, **asked, "found": found, "environment": versions})


if __name__ == "__main__":
    main()
