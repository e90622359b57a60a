"""How much worse does a model predict text with 8-bit weights?

    python benchmarks/int8_quality.py FOLDER TEXT... [--most 200000] [--out FILE.json]

Bits per byte of text files under a published model, in windows of its context, with weights as they are published, in
fp16 and in 8 bits; at most --most characters of each file.
"""

import argparse
import math
from pathlib import Path

import torch

import lilliput
from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.nn.decoding_copy import decoding_copy


@torch.inference_mode()
def bits_per_byte(model: torch.nn.Module, windows: list[torch.Tensor], size: int) -> float:
    """Bits of all tokens but the first of each window, over the bytes of the text."""
    nats = 0.0
    for window in windows:
        logits = model(window[None])[0, :-1].float()
        nats += float(torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum"))
    return nats / math.log(2) / size


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder")
    options.add_argument("texts", nargs="+", type=Path)
    options.add_argument("--most", type=int, default=200_000, metavar="CHARACTERS")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    model = lilliput.load(given.folder, device="cpu")
    texts = [path.read_text(encoding="utf-8")[: given.most] for path in given.texts]
    size = sum(len(text.encode()) for text in texts)
    windows = [
        part
        for text in texts
        for part in torch.tensor(model.tokenizer.encode(text).ids).split(model.context)
        if len(part) > 1
    ]
    forms = {"fp32": model.module, "int8": decoding_copy(model.module, int8=True)}
    found = {name: bits_per_byte(form, windows, size) for name, form in forms.items()}
    found["fp16"] = bits_per_byte(model.module.half(), windows, size)
    for name, value in found.items():
        print(f"{name}  {value:.5f} bits per byte  {value - found['fp32']:+.5f}")
    if given.out:
        name = Path(given.folder).name
        write_json(given.out, {"model": name, "bits_per_byte": found, "bytes": size, "environment": environment()})


if __name__ == "__main__":
    main()
