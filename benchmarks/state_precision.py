"""What does a recurrent state of 16 bits lose over long texts?

    python benchmarks/state_precision.py FOLDER TEXT... [--length 16384] [--rows 4] [--dtypes fp16 bf16]
                                         [--weights fp32] [--out FILE.json]

FOLDER is any model that `lilliput.load` reads. Rows of `length` tokens of the text files are read token by token, as
text is written, with states stored in fp32 and in each dtype: bits per byte of the next tokens, the share of positions
at which the likeliest token is that of fp32, and the largest and the mean difference of a logit. Each for the positions
up to 1,024, from there to 4,096, and to 16,384: what rounding loses could add up.

A model only tells of the positions over which its own channels forget. So random values are also written into channels
that forget over so many positions, and the states are compared: rounded, a change of less than half a unit in the last
place is none, and a channel that forgets slowly changes little at a time.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import lilliput
from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.generate.decode_step import DecodeStep
from lilliput.generate.dtypes import STATES, WEIGHTS
from lilliput.generate.states import RowStates
from lilliput.model import LanguageModel
from lilliput.nn.decoding_copy import decoding_copy
from lilliput.ops.gla.step import gla_step
from lilliput.serve.token_text import TokenText

HORIZONS = (10, 100, 300, 1_000, 3_000, 10_000, 100_000)
"""Positions over which channels forget 1 - 1/e of what they held."""
SPANS = (1_024, 4_096, 16_384)
"""Positions up to which figures are given."""


class Reader:
    """Reads rows token by token with states of one dtype.

    Args:
        model: as `decoding_copy` returns it.
        rows: that are read side by side.
        length: tokens of a row.
        dtype: of its states.
    """

    def __init__(self, model: LanguageModel, rows: int, length: int, dtype: torch.dtype):
        self._step, self.states = DecodeStep(model, compile=False), RowStates(model, rows, length, dtype)
        self._positions = torch.zeros(rows, dtype=torch.int64)
        self._lengths = torch.ones(rows, dtype=torch.int64)

    def logits(self, tokens: torch.Tensor, position: int) -> torch.Tensor:
        """Return the logits after the tokens of one position [B, V], in fp32."""
        return self._step(tokens, self.states, position + 1, self._positions, self._lengths).float()


class Span:
    """Sums over positions, of one dtype beside fp32."""

    def __init__(self) -> None:
        self.nats = self.difference = self.largest = 0.0
        self.same = self.tokens = 0

    def add(self, logits: torch.Tensor, exact: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in one position of all rows: logits [B, V] twice, and the tokens that came next [B]."""
        apart = (logits - exact).abs()
        self.nats += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
        self.same += int((logits.argmax(-1) == exact.argmax(-1)).sum())
        self.largest, self.difference = max(self.largest, float(apart.amax())), self.difference + float(apart.mean())
        self.tokens += len(targets)


@torch.inference_mode()
def measured(
    model: LanguageModel, rows: torch.Tensor, sizes: torch.Tensor, dtypes: Sequence[str]
) -> list[dict[str, Any]]:
    """Figures of each dtype and span.

    Args:
        model: as `decoding_copy` returns it.
        rows: tokens [B, L + 1].
        sizes: bytes of each token, of the same shape.
        dtypes: names of dtypes, fp32 first.
    """
    count, length = len(rows), rows.shape[1] - 1
    readers = [Reader(model, count, length, STATES[name]) for name in dtypes]
    ends = [*(end for end in SPANS if end < length), length]
    found, begin = [], 0
    for end in ends:
        spans = [Span() for _ in readers]
        for position in range(begin, end):
            tokens = rows[:, position].clone()
            logits = [reader.logits(tokens, position) for reader in readers]
            for span, one in zip(spans, logits, strict=True):
                span.add(one, logits[0], rows[:, position + 1])
        size = int(sizes[:, begin + 1 : end + 1].sum())
        for name, span, reader in zip(dtypes, spans, readers, strict=True):
            found.append(
                {
                    "states": name,
                    "positions": [begin, end],
                    "bytes": size,
                    "bits_per_byte": span.nats / math.log(2) / size,
                    "same_greedy": span.same / span.tokens,
                    "largest_logit_difference": span.largest,
                    "mean_logit_difference": span.difference / (end - begin),
                    "state_bytes_per_row": reader.states.bytes // count,
                }
            )
            report(found[-1], found[-1 - dtypes.index(name)])
        begin = end
    return found


@torch.inference_mode()
def forgetting(positions: int, dtypes: Sequence[str]) -> list[dict[str, Any]]:
    """Error of each dtype's state after values of mean 1 and variance 1, relative to that of fp32, by horizon."""
    draw = torch.Generator().manual_seed(0)
    horizons = torch.tensor(HORIZONS, dtype=torch.float32)[None, None]  # channels of one head of one row
    states = [torch.zeros(1, 1, len(HORIZONS), 256, dtype=STATES[name]) for name in dtypes]
    for _ in range(positions):
        v = 1 + torch.randn(1, 1, 256, generator=draw)
        for state in states:
            gla_step(torch.zeros_like(horizons), 1 / horizons, v, torch.log1p(-1 / horizons), state)
    exact = states[0][0, 0]
    found = []
    for name, state in zip(dtypes, states, strict=True):
        errors = (state[0, 0].float() - exact).norm(dim=-1) / exact.norm(dim=-1)
        found.append({"states": name, "errors": dict(zip(map(str, HORIZONS), errors.tolist(), strict=True))})
    return found


def report(one: dict[str, Any], exact: dict[str, Any]) -> None:
    begin, end = one["positions"]
    print(
        f"{one['states']:5} {begin:6,} to {end:6,}: {one['bits_per_byte']:.5f} bits per byte "
        f"({one['bits_per_byte'] - exact['bits_per_byte']:+.5f}), the same greedy token at {one['same_greedy']:.2%}, "
        f"a logit differs by {one['mean_logit_difference']:.1e}, at most {one['largest_logit_difference']:.1e}",
        flush=True,
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder")
    options.add_argument("texts", nargs="+", type=Path)
    options.add_argument("--length", type=int, default=16_384, help="tokens of a row")
    options.add_argument("--rows", type=int, default=4)
    options.add_argument("--dtypes", nargs="+", choices=STATES, default=["fp16", "bf16"])
    options.add_argument("--weights", choices=WEIGHTS, default="fp32")
    options.add_argument("--out", type=Path)
    given = options.parse_args()

    loaded = lilliput.load(given.folder, device="cpu", dtype=given.weights)
    texts = "".join(path.read_text(encoding="utf-8") for path in given.texts)
    tokens = loaded.tokenizer.encode(texts).ids
    wanted = given.rows * (given.length + 1)
    if len(tokens) < wanted:
        options.error(f"the texts have {len(tokens):,} tokens, and {wanted:,} are needed: give more, or fewer rows")
    spelled = TokenText(loaded.tokenizer)
    ids = torch.tensor(tokens[:wanted]).view(given.rows, -1)
    sizes = torch.tensor([len(spelled.named(token)[1]) for token in tokens[:wanted]]).view(given.rows, -1)
    model = decoding_copy(loaded.module, int8=given.weights == "int8")
    dtypes = ["fp32", *(name for name in given.dtypes if name != "fp32")]
    found, forgotten = measured(model, ids, sizes, dtypes), forgetting(SPANS[-1], dtypes)
    for one in forgotten[1:]:
        errors = ", ".join(f"{horizon} {error:.2%}" for horizon, error in one["errors"].items())
        print(f"{one['states']:5} error of channels that forget over so many positions: {errors}")
    if given.out:
        about = {"model": Path(given.folder).name, "length": given.length, "rows": given.rows, "weights": given.weights}
        made = {"found": found, "forgetting": forgotten, "environment": environment()}
        write_json(given.out, about | made)


if __name__ == "__main__":
    main()
