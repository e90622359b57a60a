"""What do shuffling, deduplication and packing change in a 10 million parameter model after equal tokens?

    python benchmarks/data_choices.py FOLDER --encode FILE.jsonl.xz...              once, on any machine
    python benchmarks/data_choices.py FOLDER [ARM...] [--tokens 320e6] [--known FILE.json] [--until SECONDS]
        [--out FILE.json]

Model, batch, optimizer and learning rate of SLM-10M as in `benchmarks/accelerators.py`, a WSD schedule over all tokens,
two seeds, which decide the first weights and the order of the text. Arms:

    file order                  documents as the files have them, one file after the other, in every pass the same.
                                Recipes cannot read so, a `Mixture` always shuffles; `InOrder` below does.
    shuffled                    every pass in an order of its own; each file in proportion to its tokens
    best-fit                    the same in rows of whole documents: `Mixture(packing="best-fit")`
    duplicates                  shuffled, with planted duplicates: a part of the training documents (--planted) is there
                                four times, once as it was, once again, twice with a word in a hundred changed
    deduplicated                the text of `duplicates` without what `Exact` and `NearDuplicates` drop
    deduplicated, best-fit      the same in rows of whole documents

Duplicates are planted because the corpora that one would train on have few left: 251 of 156,753 documents in that of
2026-11-30-duplicates-dropped.md. Equal tokens are equal positions: where documents are packed, filler is among them, as
much as `filler` says. Fewer documents are read more often: see `passes`. By default there are as many tokens as one
H200 reads in 120 s.

--encode writes three sets of token files, with one tokenizer, which learns from the first file. All arms are measured
on the same held-out documents, of which none is planted. One that is in the training text, or nearly, would flatter
whoever reads it most often, and is left out (`benchmarks/duplicates_dropped.py` says by which rules): `counts.json` has
how many of either side are left out for each reason, and how many planted ones were found. Numbers are bits per byte,
means over the files.
"""

import argparse
import json
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from accelerators import DECAY, MEASUREMENTS, POSITIONS, SETUPS, WARMUP, WHOLE, Curve
from duplicates_dropped import FileDecisions, counts, decide, show, workers
from numpy.lib.stride_tricks import sliding_window_view
from tokenizers import Tokenizer

from lilliput.base.environment import environment
from lilliput.base.files import read_json, write_json
from lilliput.base.units import Share, Steps, Tokens
from lilliput.data.batch import Batch, Cursor, document_ids_of
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Filtered, FilterResult
from lilliput.data.documents import Document
from lilliput.data.mixture import Mixture, Packing
from lilliput.data.shards import Shards, write_shards
from lilliput.data.split import Split, fraction_of
from lilliput.optim.schedule import WarmupStableDecay
from lilliput.shrink import shrink
from lilliput.tokenizer.bpe import BPE
from lilliput.train.loop import Trainer
from lilliput.train.machine import Machine
from lilliput.train.phase import Phase, Reader
from lilliput.train.validation import make_validator

SETUP = SETUPS["slm-10m"]
RATE = SETUP.rates[1]
"""The best one for this model (`benchmarks/optimizer_race.py`)."""
TOKENS = 320e6
"""As many as one H200 reads in 120 s (docs/accelerators.md: 642 M in 240 s)."""
ALL, PLANTED, DEDUPLICATED = "all", "planted", "deduplicated"
"""Folders of token files."""
CHANGED = (0.0, 0.01, 0.01)
"""Share of the words that are changed in each copy of a planted document."""
BASE = "shuffled"
"""The arm that others are compared with."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way to read the text."""

    files: str = ALL
    packing: Packing = "stream"
    is_shuffled: bool = True


ARMS = {
    "file order": Arm(is_shuffled=False),
    BASE: Arm(),
    "best-fit": Arm(packing="best-fit"),
    "duplicates": Arm(files=PLANTED),
    "deduplicated": Arm(files=DEDUPLICATED),
    "deduplicated, best-fit": Arm(files=DEDUPLICATED, packing="best-fit"),
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training."""

    arm: str
    tokens: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Documents but those of some numbers, counted from 0."""

    name: ClassVar[str] = "left out"

    reasons: Mapping[int, str]

    def begin(self) -> Callable[[Document], FilterResult]:
        """A function that counts the documents it meets."""
        numbers = count()
        return lambda document: self.reasons.get(next(numbers), document)


class InOrder:
    """Rows of token files one after the other, in every pass the same."""

    def __init__(self, files: Sequence[Shards]):
        self._streams, self._end = [one.stream("train") for one in files], files[0].end
        self._ends = np.cumsum([len(stream) for stream in self._streams]).tolist()

    @property
    def tokens_available(self) -> int:
        """Tokens of one pass."""
        return self._ends[-1]

    def read(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> tuple[Batch, Cursor]:
        """As `MixtureReader.read`."""
        step = length - overlap
        tokens = sliding_window_view(self._tokens(cursor.of(ALL), (rows - 1) * step + length), length)[::step]
        document_ids = torch.from_numpy(document_ids_of(tokens, self._end))
        batch = Batch(
            tokens=torch.from_numpy(tokens.copy()), weight=torch.ones(rows, length), document_ids=document_ids
        )
        return batch, self.skip(cursor, rows, length, overlap)

    def skip(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> Cursor:
        """As `MixtureReader.skip`."""
        return Cursor(positions=((ALL, cursor.of(ALL) + rows * (length - overlap)),))

    def _tokens(self, position: int, size: int) -> np.ndarray:
        found: list[np.ndarray] = []
        while size:
            place = position % self.tokens_available
            index = next(index for index, end in enumerate(self._ends) if place < end)
            some = min(size, self._ends[index] - place)
            found.append(self._streams[index].read(place - self._ends[index] + len(self._streams[index]), some))
            position, size = position + some, size - some
        return np.concatenate(found)


class Trials:
    """Trains trials on one device and the token files of a folder."""

    def __init__(self, folder: Path, machine: Machine, rows: int):
        self._machine, self._rows, self._length = machine, rows, SETUP.phase.length
        self._sets = {
            name: {file.name: Shards(file) for file in sorted((folder / name).iterdir())}
            for name in (ALL, PLANTED, DEDUPLICATED)
        }
        measured, shape = self._sets[ALL], SETUP.recipe.model.shape
        is_toy = machine.device == "cpu"
        positions = (POSITIONS // 64 if is_toy else POSITIONS) // len(measured)
        self._validate = make_validator(measured, self._length, machine, positions)
        self._spec = replace(shrink(SETUP.recipe).model.shape, vocab=shape.vocab) if is_toy else shape

    def train(self, trial: Trial) -> dict[str, Any]:
        """Train a trial and return what it reaches."""
        begun, arm = time.perf_counter(), ARMS[trial.arm]
        files = self._sets[arm.files]
        weights = {name: float(one.index["sides"]["train"]["tokens"]) for name, one in files.items()}
        data = Mixture(weights=weights, seed=trial.seed, packing=arm.packing)
        phase = self._phase(data, trial.tokens)
        shuffled = data.open(files)
        reader: Reader = shuffled if arm.is_shuffled else InOrder(list(files.values()))
        model = self._spec.build(trial.seed).to(self._machine.device)
        curve = Curve(available=reader.tokens_available)
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(model, phase, reader, self._machine, folder=Path(folder), seed=trial.seed, report=print)
            trainer.train(lambda _: curve, self._validate)  # type: ignore[arg-type, return-value]
            trainer.release()
        _, tokens, passes, end = curve.points[-1]
        fills = {name: shuffled.row_fill(name, *phase.row_tokens(0)) for name in files}
        filler = sum(weights[name] * fill.filler for name, fill in fills.items() if fill) / sum(weights.values())
        print(f"{trial} ends at {end:.4f} bits per byte after {passes:.2f} passes, filler {filler:.2%}", flush=True)
        return asdict(trial) | {
            "bits_per_byte": end,
            "tokens_read": tokens,
            "passes": passes,
            "filler": filler,
            "step_milliseconds": 1e3 * statistics.median(curve.times[0]),
            "seconds_of_steps": curve.seconds,
            "seconds_in_all": time.perf_counter() - begun,
            "curve": curve.points,
        }

    def _phase(self, data: Mixture, tokens: int) -> Phase:
        (whole,) = WHOLE
        return replace(
            SETUP.phase,
            tokens=Tokens(tokens),
            batch_tokens=self._rows * self._length,
            data=data,
            stages=(replace(whole, objective=replace(whole.objective, terms=SETUP.terms)),),  # type: ignore[type-var]
            optimizer=SETUP.optimizer(RATE),
            schedule=WarmupStableDecay(warmup=Share(WARMUP), decay=Share(DECAY)),
            save_every=Steps(10**9),
            measure_every=Share(1 / MEASUREMENTS),
        )


def encode(files: Sequence[str], folder: Path, vocab: int, planted: float) -> None:
    """Write the sets of token files, and what each of them leaves out; files side by side, one core each.

    Args:
        files: JSON Lines with `text`.
        folder: of the sets.
        vocab: size of the vocabulary.
        planted: share of the training documents that is planted.
    """
    begun = time.perf_counter()
    with workers(min(2 * len(files), os.cpu_count() or 1)) as pool, tempfile.TemporaryDirectory() as temporary:
        tokenizer = pool.submit(_tokenizer, files[0], vocab)
        targets = [str(Path(temporary) / f"{number:03d}.jsonl") for number in range(len(files))]
        originals = list(pool.map(plant, files, targets, [planted] * len(files)))
        decided = decide(targets, pool)
        copies = [range(size, len(one.sizes)) for size, one in zip(originals, decided, strict=True)]
        found = counts(decided) | {"planted": _found(copies, decided)}
        show(found)
        print(f"decided after {time.perf_counter() - begun:.0f} s", flush=True)
        tasks = [
            (target, tokenizer.result(), folder / name / f"{number:03d}", {**one.leaked, **reasons})
            for number, (target, one, its) in enumerate(zip(targets, decided, copies, strict=True))
            for name, reasons in ((ALL, dict.fromkeys(its, "planted")), (PLANTED, {}), (DEDUPLICATED, one.dropped))
        ]
        print(f"tokenizer after {time.perf_counter() - begun:.0f} s", flush=True)
        sides = list(pool.map(_encode, *zip(*tasks, strict=True)))
    names = (ALL, PLANTED, DEDUPLICATED)
    sizes = {name: _sums(sides[number :: len(names)]) for number, name in enumerate(names)}
    seconds = time.perf_counter() - begun
    for name, one in sizes.items():
        print(f"{name}: {one['train']['tokens']:,} training tokens, {one['heldout']['tokens']:,} held out")
    print(f"{seconds:.0f} s")
    write_json(folder / "counts.json", {"documents": found, "sets": sizes, "share": planted, "seconds": seconds})


def plant(file: str, target: str, share: float) -> int:
    """Write the documents of a file, and copies of some training documents behind them; return how many there were."""
    documents, split = list(TextFiles(paths=(file,)).documents()), Split()
    chosen = [one for one in documents if not split.is_heldout(one.group) and fraction_of(f"planted {one.id}") < share]
    with open(target, "w", encoding="utf-8") as written:
        for one in documents:
            written.write(json.dumps({"id": one.id, "text": one.text}) + "\n")
        for number, changed in enumerate(CHANGED):
            for one in chosen:
                text = _changed(one.text, changed, random.Random(f"{number} {one.id}"))
                written.write(json.dumps({"id": one.id, "text": text}) + "\n")
    return len(documents)


def _changed(text: str, share: float, draw: random.Random) -> str:
    """Return a text in which some words are other words of it."""
    words = text.split(" ")
    return " ".join(draw.choice(words) if draw.random() < share else word for word in words)


def _found(copies: Sequence[range], decided: Sequence[FileDecisions]) -> dict[str, int]:
    """Return how many copies were planted, how large they are, and how many of them are dropped."""
    pairs = list(zip(copies, decided, strict=True))
    return {
        "documents": sum(map(len, copies)),
        "bytes": sum(int(one.sizes[its.start :].sum()) for its, one in pairs),
        "dropped": sum(number in one.dropped for its, one in pairs for number in its),
    }


def _tokenizer(file: str, vocab: int) -> str:
    split = Split()
    texts = (one.text for one in TextFiles(paths=(file,)).documents() if not split.is_heldout(one.group))
    return BPE(vocab=vocab).train(texts).to_str()


def _encode(file: str, tokenizer: str, folder: Path, reasons: Mapping[int, str]) -> dict[str, dict[str, int]]:
    corpus = Filtered(source=TextFiles(paths=(file,)), filters=(LeftOut(reasons=reasons),))
    return write_shards(corpus, Tokenizer.from_str(tokenizer), Split(), folder).index["sides"]


def _sums(sides: Sequence[dict[str, dict[str, int]]]) -> dict[str, dict[str, int]]:
    return {side: {key: sum(one[side][key] for one in sides) for key in sides[0][side]} for side in sides[0]}


def table(trials: Sequence[dict[str, Any]], tokens: int) -> str:
    """Return lines: mean and seeds of each arm, its difference to `BASE`, and whether seeds differ by less."""
    ends = {arm: [one for one in trials if (one["arm"], one["tokens"]) == (arm, tokens)] for arm in ARMS}
    values = {arm: [one["bits_per_byte"] for one in found] for arm, found in ends.items()}
    lines = [f"{'arm':24} {'mean':>7} {'seeds':>16} {'to ' + BASE:>12} {'spread':>7}  passes  filler"]
    for arm, found in values.items():
        if not found:
            lines.append(f"{arm:24} not run")
            continue
        mean, seeds, compared, spread = statistics.mean(found), " ".join(f"{one:.4f}" for one in found), "", ""
        if arm != BASE and values[BASE]:
            difference = mean - statistics.mean(values[BASE])
            widest = max(max(some) - min(some) for some in (found, values[BASE]))
            enough = min(len(found), len(values[BASE])) > 1
            compared, spread = f"{difference:+.4f}", f"{widest:.4f}" if enough else "?"
            spread += (" more than the seeds" if abs(difference) > widest else " within the seeds") if enough else ""
        first = ends[arm][0]
        lines.append(
            f"{arm:24} {mean:7.4f} {seeds:>16} {compared:>12} {spread:>7}  {first['passes']:.2f}  {first['filler']:.2%}"
        )
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("arms", nargs="*", metavar="ARM", help=f"of {', '.join(ARMS)}; all by default")
    options.add_argument("--encode", nargs="+", metavar="FILE")
    options.add_argument("--planted", type=float, default=0.25, metavar="SHARE")
    options.add_argument("--tokens", type=float, default=TOKENS)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options.add_argument(
        "--until", type=float, default=math.inf, metavar="SECONDS", help="begin no trial that would end after so many"
    )
    options.add_argument("--known", type=Path)
    options.add_argument("--device", default="cuda")
    options.add_argument("--rows", type=int, default=SETUP.rows, help="of a step")
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    begun, tokens = time.perf_counter(), int(chosen.tokens)
    if chosen.encode:
        encode(chosen.encode, chosen.folder, SETUP.recipe.model.shape.vocab, chosen.planted)
        return
    if unknown := set(chosen.arms) - set(ARMS):
        options.error(f"no such arm: {', '.join(sorted(unknown))}; one of {', '.join(ARMS)}")
    found: list[dict[str, Any]] = read_json(chosen.known)["trials"] if chosen.known else []
    precision = "bf16" if chosen.device == "cuda" else "fp32"
    machine = Machine(device=chosen.device, precision=precision).resolved()
    machine.apply()
    trials, names, longest = Trials(chosen.folder, machine, chosen.rows), [one.name for one in fields(Trial)], 0.0
    wanted = [Trial(arm=arm, tokens=tokens, seed=seed) for seed in chosen.seeds for arm in chosen.arms or ARMS]
    for trial in wanted:
        if any(asdict(trial) == {name: one[name] for name in names} for one in found):
            continue
        if time.perf_counter() - begun + longest > chosen.until:
            print(f"not run: {trial}")
            continue
        found.append(trials.train(trial))
        longest = max(longest, found[-1]["seconds_in_all"])
        if chosen.out:
            counted = read_json(chosen.folder / "counts.json")
            write_json(
                chosen.out, {"environment": environment(), "rows": chosen.rows, "text": counted, "trials": found}
            )
    print(table(found, tokens))


if __name__ == "__main__":
    main()
