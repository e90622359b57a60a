"""Does the fast encoder give the ids of tokenizers over a whole corpus, and how fast are both?

    python benchmarks/encoders.py FILE... [--vocab 16384] [--merged-digits] [--most 1000000] [--out FILE.json]

A tokenizer with our own rules learns from the first file; then the texts of each file, at most so many, are encoded by
`tokenizers` alone and with `tokenizer/fast_bpe.py`, without its own comparisons, in one process with all cores. The
script fails if an id differs.
"""

import argparse
import sys
import time
from array import array
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.data.corpora.files import TextFiles
from lilliput.tokenizer import fast_bpe
from lilliput.tokenizer.bpe import BPE
from lilliput.tokenizer.encoder import Encoder
from lilliput.tokenizer.specials import literal


def encoded(tokenizer: Tokenizer, texts: list[str], *, fast: bool) -> tuple[list["array[int]"], float]:
    """The ids of texts and the seconds that they took."""
    encoder = Encoder(tokenizer)
    if not fast:
        encoder._fast = None
    began = time.perf_counter()
    ids = list(encoder.stream(texts))
    return ids, time.perf_counter() - began


def compared(tokenizer: Tokenizer, file: Path, most: int) -> dict[str, Any]:
    """What both encoders make of a file's texts."""
    texts = [document.text for document, _ in zip(TextFiles(paths=(str(file),)).documents(), range(most), strict=False)]
    slow, slow_seconds = encoded(tokenizer, texts, fast=False)
    fast, fast_seconds = encoded(tokenizer, texts, fast=True)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    return {
        "file": file.name,
        "texts": len(texts),
        "megabytes": megabytes,
        "differ": sum(one != other for one, other in zip(slow, fast, strict=True)),
        "tokenizers_mb_s": megabytes / slow_seconds,
        "fast_mb_s": megabytes / fast_seconds,
    }


def report(found: dict[str, Any]) -> str:
    """A file in a line."""
    speeds = f"tokenizers {found['tokenizers_mb_s']:.1f} MB/s, fast {found['fast_mb_s']:.1f} MB/s"
    return f"{found['file']}: {found['differ']} of {found['texts']:,} texts differ; {speeds}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("files", nargs="+", type=Path)
    options.add_argument("--vocab", type=int, default=16_384)
    options.add_argument("--merged-digits", action="store_true")
    options.add_argument("--most", type=int, default=1_000_000, metavar="TEXTS")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    fast_bpe.COMPARED = sys.maxsize
    documents = TextFiles(paths=(str(given.files[0]),)).documents()
    learned = BPE(vocab=given.vocab, digits=not given.merged_digits).train(document.text for document in documents)
    tokenizer = literal(learned)
    if fast_bpe.FastBPE.of(tokenizer) is None:
        sys.exit("tokie is not installed")
    found = []
    for file in given.files:
        found.append(compared(tokenizer, file, given.most))
        print(report(found[-1]), flush=True)
    if given.out:
        write_json(given.out, {"vocab": given.vocab, "found": found, "environment": environment()})
    if any(one["differ"] for one in found):
        sys.exit("ids differ")


if __name__ == "__main__":
    main()
