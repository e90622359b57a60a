"""How close is greedy text in 16 and 8 bits to that of fp32?

    python benchmarks/greedy_precision.py FOLDER TEXT... [--dtypes fp32 bf16 fp16 int8] [--prompts 64] [--length 64]
                                          [--tokens 64] [--rows 1 64] [--device cpu] [--compile] [--out FILE.json]

FOLDER is any model that `lilliput.load` reads, and prompts are pieces of the text files. For each dtype and each number
of rows that write at once: the share of tokens that fp32 writes too, up to where a text first differs; the share that
the full fp32 forward pass over the same text would choose; the share whose fp32 logit is at most 0.05 below the
largest, and the most that one is below it. What fp32 writes is written in as many rows as the most that are asked for.
For 16 bits, fp32 has the same rounded weights, so that what is compared is the arithmetic; for 8 bits it has those of
the folder. --transformers also asks `AutoModelForCausalLM` for its greedy text in the same 16 bits.
"""

import argparse
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

import lilliput
from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.generate.engine import Engine
from lilliput.generate.request import Request
from lilliput.generate.sampling import Sampling
from lilliput.model import LanguageModel

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}


def written(model: LanguageModel, prompts: Sequence[list[int]], tokens: int, **settings: Any) -> list[list[int]]:
    """The greedy text after each prompt."""
    texts: list[list[int]] = [[] for _ in prompts]
    greedy = Sampling(greedy=True)
    requests = [Request(prompt=prompt, max_new_tokens=tokens, sampling=greedy) for prompt in prompts]
    for number, token in Engine(model, **settings).generate(requests):
        texts[number].append(token)
    return texts


@torch.inference_mode()
def gaps(model: LanguageModel, prompt: list[int], text: list[int]) -> torch.Tensor:
    """How far below the largest logit that of each written token is, in a full pass over the text."""
    device = next(model.parameters()).device
    logits = model(torch.tensor([prompt + text[:-1]], device=device))[0, len(prompt) - 1 :].float()
    return logits.amax(dim=-1) - logits.gather(-1, torch.tensor(text, device=device)[:, None])[:, 0]


def shared(one: list[int], other: list[int]) -> int:
    """How many tokens two texts begin with alike."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def written_by_transformers(
    folder: str, prompts: Sequence[list[int]], tokens: int, device: str, dtype: torch.dtype
) -> list[list[int]]:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device)
    ids = torch.tensor(prompts, device=device)
    settings = {"do_sample": False, "max_new_tokens": tokens, "eos_token_id": None, "pad_token_id": 0}
    texts = theirs.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    return texts[:, ids.shape[1] :].tolist()


def closeness(
    exact: LanguageModel, prompts: Sequence[list[int]], straight: Sequence[list[int]], texts: Sequence[list[int]]
) -> dict[str, float]:
    """How close texts are to those of fp32, see above.

    Args:
        exact: the fp32 model.
        prompts: what the texts continue.
        straight: what fp32 writes.
        texts: what is compared.
    """
    below = torch.cat([gaps(exact, prompt, text) for prompt, text in zip(prompts, texts, strict=True)])
    alike = sum(shared(one, other) for one, other in zip(straight, texts, strict=True))
    return {
        "same_tokens": alike / sum(map(len, straight)),
        "chosen_by_fp32": float((below == 0).float().mean()),
        "within_0.05": float((below <= 0.05).float().mean()),
        "largest_gap": float(below.max()),
        "tokens": below.numel(),
    }


def report(name: str, found: dict[str, float]) -> None:
    print(
        f"{name:19} {found['same_tokens']:6.1%} of the tokens that fp32 writes; a full pass chooses "
        f"{found['chosen_by_fp32']:6.1%}; {found['within_0.05']:7.2%} within 0.05, at most {found['largest_gap']:.4f}",
        flush=True,
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder")
    options.add_argument("texts", nargs="+", type=Path)
    options.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    options.add_argument("--prompts", type=int, default=64)
    options.add_argument("--length", type=int, default=64, help="tokens of a prompt")
    options.add_argument("--tokens", type=int, default=64, help="tokens that are written after each")
    options.add_argument(
        "--rows", type=int, nargs="+", default=[16], help="that write at once, one number after another"
    )
    options.add_argument("--device", default="cpu")
    options.add_argument("--compile", action="store_true")
    options.add_argument("--transformers", action="store_true")
    options.add_argument("--out", type=Path)
    given = options.parse_args()

    loaded = lilliput.load(given.folder, device="cpu")
    ids = [id for path in given.texts for id in loaded.tokenizer.encode(path.read_text(encoding="utf-8")).ids]
    apart = max(1, (len(ids) - given.length) // given.prompts)
    prompts = [ids[begin : begin + given.length] for begin in range(0, apart * given.prompts, apart)]
    settings = {"compile": given.compile, "context": given.length + given.tokens}
    found = {}
    for name in given.dtypes:
        model = lilliput.load(given.folder, device="cpu").module.to(given.device, DTYPES[name])
        exact = deepcopy(model).float()
        straight = written(exact, prompts, given.tokens, rows=max(given.rows), **settings)
        for rows in given.rows:
            texts = written(model, prompts, given.tokens, rows=rows, int8=name == "int8", **settings)
            label = f"{name}, {rows} row{'s' * (rows > 1)}"
            found[label] = closeness(exact, prompts, straight, texts)
            report(label, found[label])
        if given.transformers and name in ("bf16", "fp16"):
            texts = written_by_transformers(given.folder, prompts, given.tokens, given.device, DTYPES[name])
            found[f"{name}, transformers"] = closeness(exact, prompts, straight, texts)
            report(f"{name}, transformers", found[f"{name}, transformers"])
    if given.out:
        asked = {name: getattr(given, name) for name in ("prompts", "length", "tokens", "rows", "device", "compile")}
        write_json(given.out, {"model": Path(given.folder).name, **asked, "found": found, "environment": environment()})


if __name__ == "__main__":
    main()
