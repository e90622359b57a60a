"""Files of a reference's log-probabilities: of each side one of float32, [rows, P, 2], in the order of the pairs' rows.

P is the most pairs of a row; places of pairs that a row does not have hold zeros. They are written row by row, and what
a kill leaves is as long as `progress.json` says.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from lilliput.base.append_file import AppendFile
from lilliput.base.errors import DataError, RecipeError, RunError
from lilliput.base.files import read_json, write_json
from lilliput.data.pair_rows import PackedPairs
from lilliput.data.token_files import SIDES, Side

PROGRESS = "progress.json"
_TYPE = np.dtype("<f4")


class ComputedPairs(Protocol):
    """Result of the computation; `lilliput.growth.growth.Computed` is one."""

    @property
    def value(self) -> Any: ...
    @property
    def folder(self) -> Path: ...


class ReferenceWriter:
    """Writes the log-probabilities of the rows of a side, from the first one that is not written yet."""

    def __init__(self, folder: Path, side: Side, pairs: PackedPairs):
        self._folder, self._side = folder, side
        self._row = pairs.pairs_per_row * 2 * _TYPE.itemsize
        self._bound = {"tokens": pairs.index["sha256"], "side": side}
        path = folder / file_name(side)
        file = None
        if (folder / PROGRESS).is_file():
            found = read_json(folder / PROGRESS)
            if {key: found.get(key) for key in self._bound} == self._bound:
                file = AppendFile.reopened(path, found["length"], found["sha256"])
        self._file = file or AppendFile(path)

    @property
    def rows(self) -> int:
        """Rows that are written."""
        return self._file.length // self._row

    def write(self, values: Tensor) -> None:
        """Append the values of rows, [rows, P, 2]."""
        self._file.write(values.cpu().numpy().astype(_TYPE).tobytes())

    def sync(self) -> None:
        """Bring what is written to the disk, so that a kill does not undo it."""
        sha256 = self._file.sync()
        write_json(self._folder / PROGRESS, self._bound | {"length": self._file.length, "sha256": sha256})

    def __enter__(self) -> "ReferenceWriter":
        self.sync()  # names the file that is being written
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def is_written(folder: Path, side: Side, pairs: PackedPairs) -> bool:
    """Return whether a side's file is whole: the one that is being written is named in `progress.json`."""
    path, size = folder / file_name(side), pairs.count(side) * pairs.pairs_per_row * 2 * _TYPE.itemsize
    progress = folder / PROGRESS
    under_way = progress.is_file() and read_json(progress).get("side") == side
    return path.is_file() and not under_way and path.stat().st_size == size


def with_reference(pairs: Any, computed: ComputedPairs, name: str) -> PackedPairs:
    """Return pairs with the log-probabilities that a computation found for them.

    Args:
        pairs: token files of the corpus.
        computed: the result.
        name: of the computation.

    Raises:
        RecipeError: the corpus holds no pairs, or the computation was something else.
        DataError: it was of other pairs.
        RunError: a file has another length.
    """
    if not isinstance(pairs, PackedPairs):
        raise RecipeError(
            "the corpus holds no pairs", where="PairData(corpus=...)", hint="name one such as PairFiles or HubPairs"
        )
    if not isinstance(computed.value, Mapping) or "pairs_sha256" not in computed.value:
        raise RecipeError(
            f"{name!r} did not compute log-probabilities of pairs",
            where="PairData(reference=...)",
            hint="name a ReferenceLogProbabilities of the timeline, before the phase",
        )
    if computed.value["pairs_sha256"] != pairs.index["sha256"]:
        raise DataError(
            f"the log-probabilities of {name!r} are of other pairs",
            where=str(computed.folder),
            hint="let ReferenceLogProbabilities read the corpus of PairData, in rows of the same length",
        )
    shape = (-1, pairs.pairs_per_row, 2)
    found: dict[Side, np.ndarray] = {
        side: np.fromfile(computed.folder / file_name(side), dtype=_TYPE) for side in SIDES
    }
    for side, values in found.items():
        if len(values) != pairs.count(side) * shape[1] * shape[2]:
            raise RunError(
                f"{file_name(side)} has {len(values):,} numbers of {pairs.count(side):,} rows",
                where=str(computed.folder),
                hint="put it back from a copy, or remove the folder to compute it again",
            )
    return pairs.with_reference({side: values.reshape(shape).astype(np.float32) for side, values in found.items()})


def file_name(side: Side) -> str:
    """Name of the file of a side."""
    return f"{side}.bin"
