"""Do activations of 8 bits explain what llama.cpp writes from a Q8_0 file?

    python benchmarks/rounded_activations.py FILE.gguf FOLDER [--texts FILE.jsonl] [--prompts 24] [--tokens 64]
                                             [--threads 2] [--out FILE.json]

FILE.gguf is of FOLDER, whose tokenizer it has. llama.cpp, of llama-cpp-python, which has to be installed, writes tokens
greedily, asked for one at a time. In Q8_0 it rounds what enters a product to 8 bits too: in blocks of 32 by the largest
of them, with a scale in fp16. Our forward pass over the same weights is made as it is, in fp32; with inputs rounded so;
and so once more after they were changed by a millionth, as another order of sums changes them.

For each pass: by how much the logits of llama.cpp's tokens are below the largest. Between passes: the largest change of
a logit at each position, its median over positions. If a millionth, once rounded, moves logits as far as rounding
itself does, then two programs that round alike do not write alike, and a margin in fp32 cannot be kept by either.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from gguf_llama_cpp import ALLOWED, PROMPT, beginnings, opened, options, texts_of, written
from torch import Tensor

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.publish.gguf.read import read_gguf
from lilliput.tokenizer.bpe import load_tokenizer

BLOCK, LARGEST = 32, 127
MILLIONTH = 1e-6
Text = tuple[list[int], list[int]]
"""A prompt, and what is written after it."""


def rounded(x: Tensor) -> Tensor:
    """Return x [..., D] as blocks of 8 bits hold it."""
    blocks = x.unflatten(-1, (-1, BLOCK))
    scale = blocks.abs().amax(dim=-1, keepdim=True) / LARGEST
    whole = torch.round(blocks * torch.where(scale > 0, 1 / scale, 0.0))
    return (whole * scale.half().float()).flatten(-2)


def changed(x: Tensor, draw: torch.Generator) -> Tensor:
    """Return x, each number changed by a millionth of it or less."""
    return x * (1 + MILLIONTH * (2 * torch.rand(x.shape, generator=draw) - 1))


@contextmanager
def products_of(prepare: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within, what enters a product is prepared first."""
    plain = F.linear
    F.linear = lambda x, weight, bias=None: plain(prepare(x), weight, bias)  # type: ignore[assignment]
    try:
        yield
    finally:
        F.linear = plain


def margins(logits: Sequence[Tensor], texts: Sequence[Text]) -> dict[str, Any]:
    """By how much the tokens of the texts are below the largest logits."""
    below = torch.cat(
        [
            one.amax(dim=-1) - one.gather(-1, torch.tensor(text)[:, None])[:, 0]
            for one, (_, text) in zip(logits, texts, strict=True)
        ]
    )
    return {
        "tokens": below.numel(),
        "not_likeliest": int((below > 0).sum()),
        "above_allowed": int((below > ALLOWED).sum()),
        "largest": float(below.max()),
    }


def moved(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """The median over positions of the largest change of a logit."""
    changes = torch.cat([(a - b).abs().amax(dim=-1) for a, b in zip(one, other, strict=True)])
    return float(changes.median())


def main() -> None:
    arguments = options(__doc__)
    arguments.add_argument("file", type=Path)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    tokenizer, model = load_tokenizer(given.folder), read_gguf(given.file)
    prompts = beginnings(tokenizer, texts_of(given.texts), given.prompts)
    llama = opened(given.file, PROMPT + given.tokens, given.threads, n_batch=1, n_ubatch=1)
    found: list[Text] = [(prompt, written(llama, prompt, given.tokens)) for prompt in prompts]
    draw = torch.Generator().manual_seed(0)
    passes: dict[str, Callable[[Tensor], Tensor]] = {
        "fp32": lambda x: x,
        "rounded": rounded,
        "rounded, changed by a millionth": lambda x: rounded(changed(x, draw)),
        "changed by a millionth": lambda x: changed(x, draw),
    }
    logits: dict[str, list[Tensor]] = {}
    for name, prepare in passes.items():
        with torch.inference_mode(), products_of(prepare):
            logits[name] = [model(torch.tensor([one + text]))[0, len(one) - 1 : -1] for one, text in found]
    result: dict[str, Any] = {
        "margins": {name: margins(one, found) for name, one in logits.items()},
        "moved": {
            f"{one} - {other}": moved(logits[one], logits[other])
            for one, other in (
                ("fp32", "rounded"),
                ("rounded", "rounded, changed by a millionth"),
                ("fp32", "changed by a millionth"),
            )
        },
    }
    own = [(prompt, one.argmax(dim=-1).tolist()) for (prompt, _), one in zip(found, logits["rounded"], strict=True)]
    for name in ("fp32", "rounded, changed by a millionth"):
        result["margins"][f"likeliest when rounded, in {name}"] = margins(logits[name], own)
    for name, one in result["margins"].items():
        print(
            f"{name:60} {one['not_likeliest']:4} of {one['tokens']:,} not the likeliest, {one['above_allowed']} by "
            f"more than {ALLOWED}, at most {one['largest']:.4f}"
        )
    for name, value in result["moved"].items():
        print(f"{name:60} logits move by {value:.5f}")
    if given.out:
        write_json(
            given.out, {"file": given.file.name, "threads": given.threads, **result, "environment": environment()}
        )


if __name__ == "__main__":
    main()
