"""Folders of models as nobody should publish them: good ones, with something in one of their files changed."""

import copy
import json
import random
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any

import tiny_releases
from tiny_releases import RELEASES

from lilliput.base.files import new_folder, with_checksum
from lilliput.publish.export import Generation, export
from lilliput.tokenizer.chatml import CHAT_TEMPLATE, add_chatml

FILES = (
    "lilliput.json",
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "model.safetensors.index.json",
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 7, 10_000_000, 2**31, 2**40, 2**63, 10**30, 0.0, 0.5, 1e300, inf, -inf, nan),
    *("", "yes", "8", "../x", "/etc/passwd", "\x1b[2J\0", "\ud800", "é" * 9_999),
    *([], {}, [[]], [None], ["a"], [1, 2], {"a": 1}),
    *({"type": name} for name in ("lilliput.nn.gqa:GQA", "lilliput.__main__:x", "this:d", "Sequence", 3)),
)
RAW = (b"", b"{", b"[]", b"3", b"null", b"\xff\xfe", b"\0" * 9, b"[" * 900 + b"]" * 900, b'{"a":' * 100_000)


def release(folder: Path, kind: str = "llama") -> Path:
    """A release of ours with a chat template, in a folder."""
    spec, layout = RELEASES[kind]
    tokenizer = add_chatml(tiny_releases.tokenizer())
    spec = replace(spec, vocab=tokenizer.get_vocab_size())
    with new_folder(folder) as partial:
        export(
            tiny_releases.awake(spec),
            tokenizer,
            partial,
            layout=layout,
            dtype="F32",
            generation=Generation(),
            chat_template=CHAT_TEMPLATE,
        )
    return folder


def foreign(folder: Path, kind: str = "llama") -> Path:
    """The same as transformers would have saved it, in two files of weights."""
    from safetensors.torch import load_file, save_file

    release(folder, kind)
    (folder / "lilliput.json").unlink()
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {f"model-{part}.safetensors": {name: weights[name] for name in names[part::2]} for part in range(2)}
    for name, part in parts.items():
        save_file(part, folder / name)
    index = {"metadata": {}, "weight_map": {key: name for name, part in parts.items() for key in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def spoilt(file: Path, rng: random.Random) -> bytes:
    """What could be in the file instead: some of its JSON changed, now and then no JSON at all."""
    if rng.random() < 0.05:
        return rng.choice(RAW)
    plain = copy.deepcopy(json.loads(file.read_bytes()))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _change(plain, rng)
    if file.name == "lilliput.json" and isinstance(plain, dict):
        plain.pop("sha256", None)
        plain = with_checksum(plain)
    data = json.dumps(plain).encode()
    return data[: rng.randrange(len(data))] if rng.random() < 0.03 else data


def _change(plain: Any, rng: random.Random) -> None:
    """One entry, at any depth: another value, gone, under another name, or in the place of another."""
    while True:
        keys = list(plain) if isinstance(plain, dict) else range(len(plain))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(plain[key], dict | list) and plain[key] and rng.random() < 0.7:
            plain = plain[key]
            continue
        break
    chance = rng.random()
    if chance < 0.7:
        plain[key] = copy.deepcopy(rng.choice(VALUES))
    elif chance < 0.8:
        del plain[key]
    elif chance < 0.9 and isinstance(plain, dict):
        plain[rng.choice(("type", "x", "", "rope_scaling", "layer_types", "n_layer"))] = plain.pop(key)
    else:
        plain[key] = copy.deepcopy(plain[rng.choice(list(keys))])
