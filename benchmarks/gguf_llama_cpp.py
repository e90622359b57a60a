"""Does llama.cpp read the tokens that we read, and write what we would, from the GGUF files of a release?

    python benchmarks/gguf_llama_cpp.py FOLDER... [--texts FILE.jsonl] [--prompts 24] [--tokens 64] [--threads 2]
                                        [--out FILE.json]

Each FOLDER is a release in the formats hf and gguf. llama.cpp, of llama-cpp-python, which has to be installed, writes
tokens greedily after beginnings of the texts (and of a few of its own without --texts). Each token is looked up in our
fp32 forward pass over the weights of the same file, dequantized: the margin is by how much its logit is below the
largest.

Then texts are tokenized by both: every character of Unicode, alone and among others, runs of white space, digits,
contractions, code, special tokens spelled out, and the texts. Vocabularies are that of the first release, and one that
is learned from all of Unicode, so that words which are split otherwise have merges to show it; each with all of the
pre-tokenizers that files can name.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from lilliput.base.environment import environment
from lilliput.base.files import read_json, write_json
from lilliput.model import ModelSpec
from lilliput.nn.ffn import SwiGLU
from lilliput.nn.gqa import GQA
from lilliput.publish.export import Generation, export
from lilliput.publish.gguf.file_types import FILE_TYPES
from lilliput.publish.gguf.read import read_gguf
from lilliput.publish.gguf.release import gguf_file
from lilliput.publish.gguf.write import About, write_gguf
from lilliput.publish.hf_formats.qwen3 import Qwen3Format
from lilliput.tokenizer.bpe import load_tokenizer
from lilliput.tokenizer.cuts import LLAMA3, QWEN2
from lilliput.tokenizer.specials import literal, vocabulary_size

ALLOWED = 0.05
"""Largest margin: fp16 products and sums in another order change logits by some hundredths."""
PROMPT = 32
"""Tokens of a beginning."""
OWN_TEXTS = (
    "The most important thing about a small model is",
    "def merge(left, right):\n    result = []\n    while left and right:\n",
    "In 1969, three astronauts flew to the Moon. They",
    "Q: What is 12 + 30?\nA:",
)
SPANS = 128
"""Characters in a row of a text of neighbors in Unicode."""


def opened(file: Path, context: int, threads: int, **settings: Any) -> Any:
    """A file in llama.cpp."""
    from llama_cpp import Llama

    return Llama(str(file), n_ctx=context, n_threads=threads, n_threads_batch=threads, verbose=False, **settings)


def written(llama: Any, prompt: list[int], tokens: int) -> list[int]:
    """What llama.cpp writes greedily after a prompt."""
    llama.reset()
    llama.eval(prompt)
    text: list[int] = []
    for _ in range(tokens):
        text.append(llama.sample(temp=0.0, repeat_penalty=1.0))
        llama.eval(text[-1:])
    return text


@torch.no_grad()
def margins(folder: Path, file: str, prompts: Sequence[list[int]], tokens: int, threads: int) -> dict[str, Any]:
    """By how much the tokens that llama.cpp writes are below our largest logits."""
    llama, ours = opened(folder / file, PROMPT + tokens, threads), read_gguf(folder / file)
    below: list[float] = []
    for prompt in prompts:
        text = written(llama, prompt, tokens)
        logits = ours(torch.tensor([prompt + text]))[0, len(prompt) - 1 : -1]
        below += (logits.max(-1).values - logits[range(tokens), text]).tolist()
    return {
        "file": file,
        "tokens": len(below),
        "not_our_likeliest": sum(margin > 0 for margin in below),
        "largest_margin": max(below),
        "within": max(below) <= ALLOWED,
    }


def every_character() -> Iterator[str]:
    """Texts that have every character that is assigned, among its neighbors, and among letters, digits and blanks.

    Of private and empty planes there is one in 251.
    """
    points = [*range(0xD800), *range(0xE000, 0x34000), *range(0x34000, 0x110000, 251), *range(0xE0000, 0xE0200)]
    for start in range(0, len(points), SPANS):
        near = [chr(point) for point in points[start : start + SPANS]]
        yield "".join(near)
        yield " ".join(near)
        yield "".join(f"a{one}b {one}1{one}\n" for one in near)


def mixtures(count: int) -> Iterator[str]:
    """Random texts of what pre-tokenizers treat apart."""
    draw = random.Random(0)
    parts = [
        *(" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u200b", "\u2028", "\x0b", "\x85"),
        *("'s", "'S", "'ll", "'LL", "n't", "'re", "'", "''", "’s", "'ve", "'d", "'m", "'t"),
        *("1", "22", "333", "4444", "3.14", "1,000", "٣", "४", "²", "½", "Ⅳ", "〇", "𝟙", "0x1F"),
        *("word", "Word", "naïve", "Straße", "été", "e\u0301", "日本", "한국", "עברית", "العربية", "हिन्दी", "ไทย"),
        *("🙂", "👩🏽‍🚀", "🏳️‍🌈", "—", "…", "«", "»", "$", "€", "+=", "->", "::", "{}", "//", "_x", "__init__", "\\n"),
        *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|pad|>", "<|", "|>", "<s>", "\x00", "\x7f", "\ufeff"),
    ]
    for _ in range(count):
        yield "".join(draw.choices(parts, k=draw.randint(1, 24)))


def tokenized(file: Path, tokenizer: Tokenizer, groups: dict[str, Iterator[str]]) -> dict[str, Any]:
    """How many texts of each group llama.cpp reads as other tokens, with special tokens read as such or as text."""
    llama, plain = opened(file, 32, 1, vocab_only=True), literal(tokenizer)
    found: dict[str, Any] = {}
    for name, texts in groups.items():
        compared, differ, ways = 0, [], [(True, tokenizer), (False, plain)]
        for text in texts:
            for special, ours in ways[: 1 if name == "every character" else 2]:
                theirs = llama.tokenize(text.encode(), add_bos=False, special=special) if text else []
                compared += 1
                if theirs != ours.encode(text, add_special_tokens=False).ids:
                    differ.append(text)
        found[name] = {"compared": compared, "differ": len(differ), "such_as": differ[:3]}
        if name == "every character":
            points = differing_characters(llama, tokenizer, differ)
            found[name] |= {"characters": len(points), "ranges": ranges(points)}
    return found


def differing_characters(llama: Any, tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """The code points of texts that llama.cpp reads otherwise by themselves or beside a letter, a digit or a sign."""
    differ = []
    for one in sorted(set("".join(texts))):
        for text in (f"a{one}b", f"1{one}2", f" {one}", f"!{one}!", f"{one}{one} {one}"):
            theirs = llama.tokenize(text.encode(), add_bos=False, special=True)
            if theirs != tokenizer.encode(text, add_special_tokens=False).ids:
                differ.append(ord(one))
                break
    return differ


def ranges(points: Sequence[int]) -> list[str]:
    """Code points in a row as their first and last."""
    ends: list[list[int]] = []
    for point in points:
        if ends and point == ends[-1][1] + 1:
            ends[-1][1] = point
        else:
            ends.append([point, point])
    return [f"U+{first:04X}..U+{last:04X}" for first, last in ends]


def with_rules(tokenizer: Tokenizer, name: str) -> Tokenizer:
    """The same vocabulary and merges with the rules that llama.cpp has under a name."""
    by_regex = pre_tokenizers.ByteLevel(add_prefix_space=False)
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    steps: dict[str, list[Any]] = {
        "smollm": [pre_tokenizers.Digits(individual_digits=True), by_regex],
        "gpt-2": [by_regex],
        "llama-bpe": [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), by_bytes],
        "qwen2": [pre_tokenizers.Split(Regex(QWEN2), "isolated"), by_bytes],
    }
    made = Tokenizer.from_str(tokenizer.to_str())
    plain = json.loads(made.to_str())
    plain["model"]["ignore_merges"] = name == "llama-bpe"
    made = Tokenizer.from_str(json.dumps(plain))
    made.pre_tokenizer = pre_tokenizers.Sequence(steps[name]) if len(steps[name]) > 1 else steps[name][0]
    return made


def learned_from_unicode(tokenizer: Tokenizer, size: int) -> Tokenizer:
    """A tokenizer with the same rules and special tokens, and merges from texts of every character."""
    made = Tokenizer(models.BPE(ignore_merges=tokenizer.model.ignore_merges))
    made.pre_tokenizer, made.decoder = tokenizer.pre_tokenizer, tokenizer.decoder
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    settings = {"special_tokens": added, "initial_alphabet": alphabet, "show_progress": False}
    made.train_from_iterator(every_character(), trainers.BpeTrainer(vocab_size=size, **settings))
    return made


def of_rules(tokenizer: Tokenizer, name: str, vocabulary: str, texts: Sequence[str]) -> dict[str, Any]:
    """Tokenize with the rules of a name, by a file that a small model without training is published in."""
    made = with_rules(tokenizer, name)
    if vocabulary == "unicode":
        made = learned_from_unicode(made, vocabulary_size(made))
    spec = ModelSpec(
        vocab=vocabulary_size(made),
        width=32,
        layers=1,
        mixer=GQA(heads=1, kv_heads=1, head_width=32, qk_norm=True),
        ffn=SwiGLU(inner=32),
    )
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        settings = {"dtype": "F16", "generation": Generation(), "chat_template": None}
        export(spec.build(0), made, folder, layout=Qwen3Format(context=64), **settings)
        write_gguf(folder, folder / "one.gguf", "F16", About(name=name))
        groups = {"every character": every_character(), "mixtures": mixtures(4_000), "texts": iter(texts)}
        return {"pre_tokenizer": name, "vocabulary": vocabulary} | tokenized(folder / "one.gguf", made, groups)


def options(about: str | None) -> argparse.ArgumentParser:
    """The options of scripts that let llama.cpp write."""
    found = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--texts", type=Path)
    found.add_argument("--prompts", type=int, default=24)
    found.add_argument("--tokens", type=int, default=64)
    found.add_argument("--threads", type=int, default=2)
    return found


def texts_of(file: Path | None) -> list[str]:
    """A few texts of this script, and the first of a file."""
    texts = list(OWN_TEXTS)
    if file:
        with open(file, encoding="utf-8") as lines:
            texts += [json.loads(line)["text"] for line in islice(lines, 400)]
    return texts


def beginnings(tokenizer: Tokenizer, texts: Sequence[str], count: int) -> list[list[int]]:
    """The tokens that some texts begin with."""
    return [ids for text in texts if (ids := tokenizer.encode(text[:400]).ids[:PROMPT])][:count]


def main() -> None:
    arguments = options(__doc__)
    arguments.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    texts = texts_of(given.texts)
    files, read = [], []
    for folder in given.folders:
        tokenizer = load_tokenizer(folder)
        prompts = beginnings(tokenizer, texts, given.prompts)
        architecture = read_json(folder / "config.json")["architectures"][0]
        for file_type in FILE_TYPES:
            file = gguf_file(folder.resolve().name, file_type)
            files.append({"architecture": architecture} | margins(folder, file, prompts, given.tokens, given.threads))
            print(files[-1], flush=True)
    for vocabulary in ("release", "unicode"):
        for name in ("smollm", "gpt-2", "llama-bpe", "qwen2"):
            read.append(of_rules(load_tokenizer(given.folders[0]), name, vocabulary, texts))
            counts = {group: one for group, one in read[-1].items() if isinstance(one, dict)}
            said = ", ".join(f"{group}: {one['differ']} of {one['compared']:,}" for group, one in counts.items())
            print(f"{name}, {vocabulary}: {said}; {counts['every character']['characters']} characters", flush=True)
    if given.out:
        import llama_cpp

        versions = environment() | {"llama_cpp_python": llama_cpp.__version__}
        asked = {"prompts": given.prompts, "tokens": given.tokens, "texts": len(texts)}
        write_json(given.out, asked | {"written": files, "read": read, "environment": versions})


if __name__ == "__main__":
    main()
