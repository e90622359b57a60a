"""How much of a corpus is duplicates, and how many held-out documents are in the training text, or nearly?

    python benchmarks/duplicates_dropped.py FILE... [--processes 16] [--out FILE.json]

The training documents go through `Exact`, then `NearDuplicates`, file after file, as in a recipe; keys are made by
processes side by side, a file each, and compared in one. Documents that `Split` holds out drop nothing and are not
dropped: they are in the training text if `Exact` finds them there, if they have a bucket of `NearDuplicates` in common
with a training document, or four fifths of their runs of five words (`lilliput.data.near_pairs`).
`benchmarks/data_choices.py` leaves these out of what it measures.
"""

import argparse
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.data.corpora.files import TextFiles
from lilliput.data.corpora.filters import Exact
from lilliput.data.corpora.filters.near_duplicates import NearDuplicates
from lilliput.data.key_set import KeySet
from lilliput.data.near_pairs import near_pairs
from lilliput.data.split import Split

BUCKET, NEARLY = "has a bucket of training text", "nearly training text"
"""Reasons why a held-out document is not measured, beside that of `Exact`."""


@dataclass(frozen=True, kw_only=True)
class FileKeys:
    """Keys of the documents of a file, in their order."""

    sizes: np.ndarray
    """UTF-8 bytes of each, [documents]."""
    is_heldout: np.ndarray
    """[documents] bool."""
    exact: np.ndarray
    """Key of each by `Exact`, [documents] uint64."""
    near: Sequence[np.ndarray | None]
    """Keys of each by `NearDuplicates`, [buckets] uint64; None of a short one."""
    heldout_texts: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class FileDecisions:
    """Documents of a file that are left out, by number, with the reason."""

    dropped: Mapping[int, str]
    """Training documents that are duplicates."""
    leaked: Mapping[int, str]
    """Held-out documents that are in the training text of any file."""
    sizes: np.ndarray
    """UTF-8 bytes of each document, [documents]."""
    is_heldout: np.ndarray


def workers(count: int) -> ProcessPoolExecutor:
    """Return processes that take one core each."""
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_take_one_core)


def _take_one_core() -> None:
    os.environ["RAYON_NUM_THREADS"] = "1"  # rensa reads it in its first call


def decide(files: Sequence[str], pool: Executor) -> list[FileDecisions]:
    """Return which documents of each file are duplicates of earlier ones, and which held-out ones are leaked."""
    keys = list(pool.map(_keys, files))
    texts = [text for one in keys for text in one.heldout_texts]
    nearly = np.zeros(len(texts), dtype=bool)
    for found in pool.map(_nearly_in, files, [texts] * len(files)):
        nearly[found] = True
    leaks = iter(_leaks(keys, nearly))
    return [
        FileDecisions(
            dropped=dropped,
            leaked={
                number: leak
                for number, leak in zip(np.flatnonzero(one.is_heldout).tolist(), leaks, strict=False)
                if leak is not None
            },
            sizes=one.sizes,
            is_heldout=one.is_heldout,
        )
        for one, dropped in zip(keys, _duplicates(keys), strict=True)
    ]


def _keys(file: str) -> FileKeys:
    documents, split = list(TextFiles(paths=(file,)).documents()), Split()
    texts = [one.text for one in documents]
    is_heldout = np.array([split.is_heldout(one.group) for one in documents])
    return FileKeys(
        sizes=np.array([len(text.encode()) for text in texts]),
        is_heldout=is_heldout,
        exact=np.concatenate(list(filter(_is_there, Exact().keys_of(texts)))),
        near=list(NearDuplicates().keys_of(texts)),
        heldout_texts=[text for text, is_out in zip(texts, is_heldout, strict=True) if is_out],
    )


def _is_there(keys: np.ndarray | None) -> bool:
    return keys is not None


def _nearly_in(file: str, heldout: Sequence[str]) -> list[int]:
    """The numbers of held-out texts that nearly are a training document of a file."""
    split = Split()
    train = [one.text for one in TextFiles(paths=(file,)).documents() if not split.is_heldout(one.group)]
    sources = np.repeat([0, 1], [len(train), len(heldout)])
    pairs = near_pairs([*train, *heldout], sources)
    return [pair.one - len(train) for pair in pairs if sources[pair.one] == 1 and sources[pair.other] == 0]


def _duplicates(keys: Iterable[FileKeys]) -> Iterator[dict[int, str]]:
    """For each file the training documents that an earlier one of any file equals, or nearly."""
    exact, near = KeySet(), KeySet()
    for one in keys:
        found: dict[int, str] = {}
        for number in np.flatnonzero(~one.is_heldout).tolist():
            own = one.near[number]
            if exact.add(one.exact[number : number + 1]):
                found[number] = Exact.reason
            elif own is not None and near.add(own):
                found[number] = NearDuplicates.reason
        yield found


def _leaks(keys: Sequence[FileKeys], nearly: np.ndarray) -> Iterator[str | None]:
    """For each held-out document of all files the first reason why it is in the training text; None if it is not."""
    exact = set(np.concatenate([one.exact[~one.is_heldout] for one in keys]).tolist())
    trained = (own for one in keys for own, is_out in zip(one.near, one.is_heldout, strict=True) if not is_out)
    buckets = set(chain.from_iterable(own.tolist() for own in trained if own is not None))
    place = 0
    for one in keys:
        for number in np.flatnonzero(one.is_heldout).tolist():
            own = one.near[number]
            if int(one.exact[number]) in exact:
                yield Exact.reason
            elif own is not None and not buckets.isdisjoint(own.tolist()):
                yield BUCKET
            else:
                yield NEARLY if nearly[place] else None
            place += 1


def counts(decided: Iterable[FileDecisions]) -> dict[str, Any]:
    """Return documents and bytes of text: in all, held out, and left out by reason."""
    documents, sizes = Counter[str](), Counter[str]()
    for one in decided:
        for name, numbers in (
            ("training", np.flatnonzero(~one.is_heldout)),
            ("held out", np.flatnonzero(one.is_heldout)),
        ):
            documents[name] += len(numbers)
            sizes[name] += int(one.sizes[numbers].sum())
        for side, reasons in (("training", one.dropped), ("held out", one.leaked)):
            for number, reason in reasons.items():
                documents[f"{side}: {reason}"] += 1
                sizes[f"{side}: {reason}"] += int(one.sizes[number])
    return {name: {"documents": count, "bytes": sizes[name]} for name, count in documents.items()}


def show(found: Mapping[str, Any]) -> None:
    """Print counts."""
    for name, one in found.items():
        print(f"{name:42} {one['documents']:10,} documents {one['bytes'] / 1e6:9.2f} MB")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("files", nargs="+", metavar="FILE")
    options.add_argument("--processes", type=int, default=os.cpu_count())
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    began = time.perf_counter()
    with workers(min(len(chosen.files), chosen.processes)) as pool:
        found = counts(decide(chosen.files, pool))
    seconds = time.perf_counter() - began
    show(found)
    print(f"{seconds:.0f} s")
    if chosen.out:
        write_json(chosen.out, {"environment": environment(), "counts": found, "seconds": seconds})


if __name__ == "__main__":
    main()
