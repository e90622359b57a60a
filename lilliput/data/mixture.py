"""Weighted sources of text. Reading is a function of a cursor; to resume is to pass the one that was saved."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import lcm

import numpy as np
import torch

from lilliput.base.errors import DataError, RecipeError
from lilliput.data.batch import Batch, Cursor, segments_of
from lilliput.data.shards import Shards, Stream

_SCAN = 4_096
"""Tokens looked at together in the search for the beginning of a document."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Corpora by name and the share of the training tokens that each of them gives; shares need not add up to 1."""

    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        bad = {name: weight for name, weight in self.weights.items() if not 0 < weight < float("inf")}
        if bad or not self.weights:
            raise RecipeError(
                f"the weights {bad} are not positive" if bad else "a mixture of nothing",
                where="Mixture(weights=...)",
                hint="name at least one corpus, and leave out what is not to be read",
            )

    @property
    def corpora(self) -> tuple[str, ...]:
        """Names of the corpora that are read."""
        return tuple(self.weights)

    def bytes_per_token(self, tokens: Mapping[str, Shards]) -> float:
        """UTF-8 bytes of text that a training token stands for, at the shares of the mixture."""
        sides = {name: tokens[name].index["sides"]["train"] for name in self.weights}
        shares = sum(self.weights.values())
        return (
            sum(share * sides[name]["bytes"] / sides[name]["tokens"] for name, share in self.weights.items()) / shares
        )

    def open(self, tokens: Mapping[str, Shards]) -> "MixtureReader":
        """Read from the train sides of these shards.

        Raises:
            DataError: a corpus of the mixture is not among them.
        """
        for name in self.weights:
            if name not in tokens:
                raise DataError(
                    f"there are no shards of {name!r}",
                    where="a mixture that names it",
                    hint=f"the corpora with shards are: {', '.join(sorted(tokens)) or 'none'}",
                )
        return MixtureReader(self.weights, {name: tokens[name].stream("train") for name in self.weights})


class MixtureReader:
    """Rows of the sources of a mixture.

    A row is of one source: of the one that is furthest behind its share of the tokens, by name where two are equal.
    A source is read from its beginning to its end, then again and again, every further pass from the beginning of
    another document on, so that the rows are cut at other places.
    """

    def __init__(self, weights: Mapping[str, float], streams: Mapping[str, Stream]):
        self._shares = _whole_shares(weights)
        self._passes = {name: _Passes(name, streams[name]) for name in self._shares}
        (self._end,) = {streams[name].end for name in self._shares}  # one tokenizer, so one end token

    @property
    def tokens_available(self) -> int:
        """Tokens of all sources together, each counted once."""
        return sum(len(source) for source in self._passes.values())

    def read(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> tuple[Batch, Cursor]:
        """The next rows and the cursor after them.

        Args:
            cursor: where to begin; reading a + b rows is reading a, then b from the cursor that came back.
            rows: B, rows of the batch.
            length: T, tokens of a row.
            overlap: a row begins with this many of the last tokens of the row before it of the same source: 1 makes
                every token a target once; a bag of S tokens shifted by one bag wants S.

        Raises:
            DataError: the cursor is of other sources.
        """
        assert 0 <= overlap < length
        taken = self._taken(cursor)
        total = sum(taken.values())
        whole = sum(self._shares.values())
        step = length - overlap
        tokens = np.empty((rows, length), dtype=np.int64)
        for row in tokens:
            due = total + step
            name = max(taken, key=lambda name: self._shares[name] * due - whole * taken[name])
            row[:] = self._passes[name].read(taken[name], length)
            taken[name] += step
            total += step
        batch = Batch(
            tokens=torch.from_numpy(tokens),
            weight=torch.ones(rows, length),
            segments=torch.from_numpy(segments_of(tokens, self._end)),
        )
        return batch, Cursor(positions=tuple(taken.items()))

    def _taken(self, cursor: Cursor) -> dict[str, int]:
        unknown = sorted(name for name, _ in cursor.positions if name not in self._shares)
        if unknown:
            raise DataError(
                f"the cursor is in {', '.join(unknown)}, which this mixture does not read",
                where="the data position of a checkpoint",
                hint="resume with the mixture that the run began with",
            )
        return {name: cursor.of(name) for name in self._shares}


class _Passes:
    """A stream without an end: pass after pass over the same tokens, each from a document of its own on."""

    def __init__(self, name: str, stream: Stream):
        self._name, self._stream = name, stream
        self._first = cache(self._find_first)

    def __len__(self) -> int:
        return len(self._stream)

    def read(self, position: int, count: int) -> np.ndarray:
        """`count` tokens from `position` on, [count] int64; position // len(self) is the pass."""
        pieces = []
        while count:
            number, place = divmod(position, len(self))
            piece = self._stream.read(self._first(number) + place, min(count, len(self) - place))
            pieces.append(piece)
            position += len(piece)
            count -= len(piece)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _find_first(self, number: int) -> int:
        """Where a pass begins: the first at 0, the others at the first document after a fixed random position."""
        if number == 0:
            return 0
        digest = hashlib.sha256(f"{self._name}\0{number}".encode()).digest()
        position = int.from_bytes(digest[:8], "little") % len(self)
        for start in range(position, position + len(self), _SCAN):
            ends = np.flatnonzero(self._stream.read(start, _SCAN) == self._stream.end)
            if len(ends):
                return (start + int(ends[0])) % len(self)
        raise DataError(
            f"no document begins in the {len(self):,} tokens of {self._name!r}",
            where="its token files",
            hint='delete their folder and write it again with "lilliput run RECIPE"',
        )


def _whole_shares(weights: Mapping[str, float]) -> dict[str, int]:
    """Weights as whole numbers in the same proportions, by name: what is compared exactly does not depend on rounding.

    A weight is the decimal number that was written: 0.1 is a tenth, not the nearest binary fraction.
    """
    exact = {name: Fraction(str(float(weights[name]))) for name in sorted(weights)}
    scale = lcm(*(weight.denominator for weight in exact.values()))
    return {name: int(weight * scale) for name, weight in exact.items()}
