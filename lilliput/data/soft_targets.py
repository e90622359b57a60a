"""Files of a teacher's predictions: for each token of the train side of a corpus, in the order of its token files, the
likeliest tokens in its place and their log-probabilities.

A record is K token ids, uint16 while all of the vocabulary fit, and K log-probabilities in fp16, the likeliest first;
that of the first token, which nothing precedes, is zeros. A file has no header: what is in it says the value of the
computation that wrote it. While it is written, `progress.json` says how much of it a kill leaves.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lilliput.base.append_file import AppendFile
from lilliput.base.errors import DataError, RecipeError, RunError
from lilliput.base.files import read_json, write_json

TOKENS, PROBABILITIES = "soft_target_tokens", "soft_target_probabilities"
"""Extras of a batch: [B, T, K] int32 and float32, of each token; probabilities of 0 where a token has none."""
PROGRESS = "progress.json"
SHARDS = "shards"
"""In the value of the computation: by corpus, the hash of the token files that the predictions are for."""


def record_type(vocab: int, count: int) -> np.dtype:
    """Return the type of a record of `count` tokens of a vocabulary."""
    ids = "<u2" if vocab <= 1 << 16 else "<u4"
    return np.dtype([("tokens", ids, (count,)), ("log_probabilities", "<f2", (count,))])


class ComputedPredictions(Protocol):
    """Result of the computation; `lilliput.growth.growth.Computed` is one."""

    @property
    def value(self) -> Any: ...
    @property
    def folder(self) -> Path: ...


class SoftTargetWriter:
    """Writes the predictions for a corpus, from the first one that is not written yet.

    Args:
        folder: of the computation.
        corpus: its name.
        shards_sha256: of its token files.
        record: the type of a record.
    """

    def __init__(self, folder: Path, corpus: str, shards_sha256: str, record: np.dtype):
        self._progress, self._record = folder / PROGRESS, record
        self._bound = {"corpus": corpus, SHARDS: shards_sha256}
        path, file = folder / file_name(corpus), None
        if self._progress.is_file():
            found = read_json(self._progress)
            if {key: found.get(key) for key in self._bound} == self._bound:
                file = AppendFile.reopened(path, found["length"], found["sha256"])
        self._file = file or AppendFile(path)
        if not self._file.length:
            self._file.write(np.zeros(1, dtype=record).tobytes())

    @property
    def count(self) -> int:
        """Tokens whose predictions are written."""
        return self._file.length // self._record.itemsize

    def write(self, tokens: Tensor, log_probabilities: Tensor) -> None:
        """Append the predictions for tokens, [N, K] each."""
        records = np.empty(len(tokens), dtype=self._record)
        records["tokens"] = tokens.cpu().numpy()
        records["log_probabilities"] = log_probabilities.cpu().numpy()
        self._file.write(records.tobytes())

    def sync(self) -> None:
        """Bring what is written to the disk, so that a kill does not undo it."""
        sha256 = self._file.sync()
        write_json(self._progress, self._bound | {"length": self._file.length, "sha256": sha256})

    def __enter__(self) -> "SoftTargetWriter":
        self.sync()  # names the file that is being written
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


class SoftTargetFile:
    """The predictions for a corpus, mapped into memory."""

    def __init__(self, path: Path, record: np.dtype, tokens: int):
        """Open a file.

        Args:
            path: the file.
            record: the type of a record.
            tokens: of the train side.

        Raises:
            RunError: it has another length.
        """
        size = path.stat().st_size if path.is_file() else 0
        if size != tokens * record.itemsize:
            raise RunError(
                f"{path.name} has {size:,} bytes, {tokens:,} tokens have {tokens * record.itemsize:,}",
                where=str(path.parent),
                hint="put it back from a copy, or remove the folder to compute it again",
            )
        self._records = np.memmap(path, dtype=record, mode="r")

    @property
    def count(self) -> int:
        """K, predictions for a token."""
        return self._records.dtype["tokens"].shape[0]

    def take(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and probabilities of the predictions at positions of the train side, [..., K]; 0 where below 0."""
        records = self._records[np.maximum(positions, 0)]
        probabilities = np.exp(records["log_probabilities"].astype(np.float32))
        probabilities[positions <= 0] = 0.0  # the first token has none either
        return records["tokens"].astype(np.int32), probabilities


def soft_target_extras(
    files: Mapping[str, SoftTargetFile], positions: np.ndarray, sources: Mapping[str, list[int]]
) -> dict[str, Tensor]:
    """Return the extras of rows.

    Args:
        files: by corpus, at least one; all of them with as many predictions.
        positions: of each token in the train side of its corpus [B, T]; below 0 for none.
        sources: the rows of each corpus.
    """
    (count,) = {file.count for file in files.values()}
    tokens = np.zeros((*positions.shape, count), dtype=np.int32)
    probabilities = np.zeros(tokens.shape, dtype=np.float32)
    for name, rows in sources.items():
        if rows and name in files:
            tokens[rows], probabilities[rows] = files[name].take(positions[rows])
    return {TOKENS: torch.from_numpy(tokens), PROBABILITIES: torch.from_numpy(probabilities)}


def open_soft_targets(computed: ComputedPredictions, name: str, tokens: Mapping[str, Any]) -> dict[str, SoftTargetFile]:
    """Return the predictions that a computation wrote, by corpus; corpora that it did not read have none.

    Args:
        computed: the result.
        name: of the computation.
        tokens: opened token files of the mixture's corpora.

    Raises:
        RecipeError: it computed something else, or read none of them.
        DataError: it read other token files.
        RunError: a file has another length.
    """
    value = computed.value
    if not isinstance(value, Mapping) or not {SHARDS, "vocab", "count"} <= value.keys():
        raise RecipeError(
            f"{name!r} computed no predictions of tokens",
            where="Mixture(soft_targets=...)",
            hint="name a TopKPredictions of the timeline, before the phase",
        )
    record = record_type(value["vocab"], value["count"])
    found = {}
    for corpus, files in tokens.items():
        if corpus not in value[SHARDS]:
            continue
        if value[SHARDS][corpus] != files.index["sha256"]:
            raise DataError(
                f"the predictions of {name!r} are for other tokens of {corpus!r}",
                where=str(computed.folder),
                hint="remove the folder to compute them again",
            )
        size = files.index["sides"]["train"]["tokens"]
        found[corpus] = SoftTargetFile(computed.folder / file_name(corpus), record, size)
    if not found:
        raise RecipeError(
            f"{name!r} predicted no token of {', '.join(tokens)}",
            where="Mixture(soft_targets=...)",
            hint=f"it read {', '.join(value[SHARDS])}; let it read a corpus of the mixture",
        )
    return found


def file_name(corpus: str) -> str:
    """Name of the file of a corpus."""
    return f"{corpus}.bin"
