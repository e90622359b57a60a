"""Weighted sources of text. Reading is a function of a cursor; to resume is to pass the one that was saved."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache
from math import lcm
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from tokenizers import Tokenizer

from lilliput.base.errors import DataError, RecipeError
from lilliput.base.spec import LATER
from lilliput.data.batch import Batch, Cursor, RowSource, document_numbers
from lilliput.data.epochs import EpochStream, RowFill
from lilliput.data.prefix_tokens import PREFIX_TOKENS, prefix_table
from lilliput.data.segmentations import Segmentations, Segmenter, repeated
from lilliput.data.shards import Shards
from lilliput.data.soft_targets import PROBABILITIES, TOKENS, SoftTargetFile, open_soft_targets, soft_target_extras
from lilliput.data.token_stream import TokenStream

Packing = Literal["stream", "best-fit"]
"""Ways to make rows of documents."""
PLANNED = 16
"""Predictions for a token in plans, which are made before those are computed."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Corpora by name and the share of the training tokens that each of them gives; shares need not add up to 1."""

    weights: Mapping[str, float]
    seed: int = 0
    """Decides, with the number of the pass, the order of the documents of each corpus."""
    packing: Packing = field(default="stream", metadata=LATER)
    """Contents of rows: a stream of documents, cut wherever a row ends; or `best-fit`, whole documents and some filler,
    where only documents longer than a row are cut (Ding et al. 2024, arXiv 2404.10830). Each pass has other rows."""
    segmentations: Segmentations | None = field(default=None, metadata=LATER)
    """Several tokenizations of each row, for `StochasticTokens`; None for that of the token files alone."""
    prefix_tokens: bool = field(default=False, metadata=LATER)
    """The prefix token of each token, for `NextToken(prefix=PrefixToken())`; see `lilliput.data.prefix_tokens`."""
    soft_targets: str | None = field(default=None, metadata=LATER)
    """Name of the `TopKPredictions` before the phase, for `NextToken(soft=SoftTargets())`; corpora that it does not
    read have none."""

    def __post_init__(self) -> None:
        bad = {name: weight for name, weight in self.weights.items() if not 0 < weight < float("inf")}
        if bad or not self.weights:
            raise RecipeError(
                f"the weights {bad} are not positive" if bad else "the mixture is empty",
                where="Mixture(weights=...)",
                hint="name at least one corpus with a weight above 0; leave out the others",
            )

        if self.packing not in get_args(Packing) or (self.packing != "stream" and self.segmentations):
            beside = " beside segmentations" if self.segmentations else ""
            raise RecipeError(
                f"packing cannot be {self.packing!r:.80}{beside}",
                where="Mixture(packing=...)",
                hint='give "stream" or "best-fit"; several tokenizations of a row have "stream" alone',
            )

        if self.segmentations and self.soft_targets:
            raise RecipeError(
                "a teacher has predicted one tokenization of the text, and rows would have several",
                where="Mixture(segmentations=..., soft_targets=...)",
                hint="leave one of them out",
            )

    @property
    def corpora(self) -> tuple[str, ...]:
        """Names of the corpora that are read."""
        return tuple(self.weights)

    @property
    def computed(self) -> tuple[str, ...]:
        """Return the name of the computation that is read, if any."""
        return () if self.soft_targets is None else (self.soft_targets,)

    def with_computed(self, tokens: Mapping[str, Shards], computed: Mapping[str, Any]) -> dict[str, Any]:
        """Return the token files with a teacher's predictions.

        Raises:
            LilliputError: they are for other tokens, or the computation is another one.
        """
        assert self.soft_targets is not None
        files = open_soft_targets(computed[self.soft_targets], self.soft_targets, tokens)
        return {**tokens, **{name: tokens[name].with_soft_targets(file) for name, file in files.items()}}

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
        streams = {name: tokens[name].stream("train") for name in self.weights}
        segmenter = prefixes = None
        if self.segmentations is not None:
            segmenter = Segmenter(self.segmentations, self._tokenizer(tokens, "Mixture(segmentations=...)"))
        if self.prefix_tokens:
            prefixes = prefix_table(self._tokenizer(tokens, "Mixture(prefix_tokens=True)"))
        soft_targets = {name: file for name in self.weights if (file := tokens[name].soft_targets) is not None}
        return MixtureReader(self.weights, streams, self.seed, segmenter, self.packing, prefixes, soft_targets)

    def synthetic(self, batch: Batch) -> Batch:
        """Rows of random tokens as this brings rows, for plans."""
        extras = repeated(batch.tokens, self.segmentations.count) if self.segmentations else {}
        if self.prefix_tokens:
            extras[PREFIX_TOKENS] = batch.tokens.int()
        if self.soft_targets:
            extras[TOKENS] = batch.tokens.int()[..., None].expand(*batch.tokens.shape, PLANNED).contiguous()
            extras[PROBABILITIES] = torch.full(extras[TOKENS].shape, 1 / PLANNED)
        return replace(batch, extras=extras) if extras else batch

    def _tokenizer(self, tokens: Mapping[str, Shards], where: str) -> Tokenizer:
        tokenizer = next(tokens[name].tokenizer for name in self.weights)
        if tokenizer is None:
            raise DataError(
                "the token files were opened without their tokenizer",
                where=where,
                hint="let a run open them, or set `tokenizer` of the opened files",
            )
        return tokenizer


class MixtureReader:
    """Rows of the sources of a mixture.

    A row is of one source: of the one that is furthest behind its share of the tokens, by name where two are equal.
    A source is read pass after pass, each of which has all its documents once, in an order of its own (`epochs.py`).
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        streams: Mapping[str, TokenStream],
        seed: int = 0,
        segmenter: Segmenter | None = None,
        packing: Packing = "stream",
        prefixes: np.ndarray | None = None,
        soft_targets: Mapping[str, SoftTargetFile] | None = None,
    ):
        self._soft_targets = soft_targets
        self._segmenter, self._is_packed, self._prefixes = segmenter, packing == "best-fit", prefixes
        self._shares = _whole_shares(weights)
        self._streams, self._seed = streams, seed
        self._passes = cache(self._new_passes)
        (self._end,) = {streams[name].end for name in self._shares}  # one tokenizer, so one end token

    @property
    def tokens_available(self) -> int:
        """Tokens of all sources together, each counted once."""
        return sum(len(self._streams[name]) for name in self._shares)

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
        step = length - overlap
        rows_of, after = self._dealt(cursor, rows, step)
        tokens, begins = np.empty((rows, length), dtype=np.int64), np.empty((rows, length), dtype=bool)
        fills = np.zeros_like(begins)
        for name, indices in rows_of.items():
            if indices:
                first, count = self._first(cursor.of(name), step), (len(indices) - 1) * step + length
                windows = (sliding_window_view(one, length)[::step] for one in self._of(name, step).read(first, count))
                tokens[indices], begins[indices], fills[indices] = windows
        # How a piece goes on that is not the first of its document, what stands before it here does not tell.
        no_target = begins & (tokens != self._end)
        if self._is_packed:  # the first filler ends the document before it; what comes after filler is no target
            no_target |= np.where(begins, np.pad(fills[:, :-1], ((0, 0), (1, 0))), fills)
        weight = np.where(no_target, np.float32(0), np.float32(1))
        batch = Batch(
            tokens=torch.from_numpy(tokens),
            weight=torch.from_numpy(weight),
            document_ids=torch.from_numpy(document_numbers(begins)),
            extras=self._extras(tokens, begins, rows_of, cursor, step),
        )
        return batch, after

    def skip(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> Cursor:
        """The cursor after the rows that `read` would return, which is a matter of the shares alone."""
        return self._dealt(cursor, rows, length - overlap)[1]

    def _dealt(self, cursor: Cursor, rows: int, step: int) -> tuple[dict[str, list[int]], Cursor]:
        """The rows of each source, by their place in the batch, and the cursor after them; each row takes `step`."""
        taken, total_share = self._taken(cursor), sum(self._shares.values())
        total = sum(taken.values())
        rows_of: dict[str, list[int]] = {name: [] for name in taken}
        for row in range(rows):
            due = total + step
            name = max(taken, key=lambda name: self._shares[name] * due - total_share * taken[name])
            rows_of[name].append(row)
            taken[name] += step
            total += step
        return rows_of, Cursor(positions=tuple(taken.items()))

    def sources(self, cursor: Cursor, rows: int, length: int, overlap: int = 1) -> list[RowSource]:
        """The origins of the rows that `read` returns for the same arguments."""
        step = length - overlap
        found: dict[int, RowSource] = {}
        for name, indices in self._dealt(cursor, rows, step)[0].items():
            source = self._of(name, step)
            for number, row in enumerate(indices):
                position = self._first(cursor.of(name), step) + number * step
                documents = tuple(source.documents(position, length))
                found[row] = RowSource(corpus=name, epoch=source.pass_of(position), documents=documents)
        return [found[row] for row in range(rows)]

    def _of(self, name: str, step: int) -> EpochStream:
        """The passes over a source, for rows that take so many tokens."""
        return self._passes(name, step if self._is_packed else None)

    def _new_passes(self, name: str, row: int | None) -> EpochStream:
        return EpochStream(self._streams[name], f"{self._seed}\0{name}", row)

    def _first(self, position: int, step: int) -> int:
        """Return where reading begins: after rows of another length, at the next one of the packed rows."""
        return -(-position // step) * step if self._is_packed else position

    def _extras(
        self, tokens: np.ndarray, begins: np.ndarray, rows_of: Mapping[str, list[int]], cursor: Cursor, step: int
    ) -> dict[str, torch.Tensor]:
        extras = {} if self._prefixes is None else {PREFIX_TOKENS: torch.from_numpy(self._prefixes[tokens])}
        if self._soft_targets:
            positions = self._positions(tokens.shape, rows_of, cursor, step)
            extras |= soft_target_extras(self._soft_targets, positions, rows_of)
        if self._segmenter is None:
            return extras
        sources, positions = [""] * len(tokens), np.zeros(len(tokens), dtype=np.int64)
        for name, indices in rows_of.items():
            for number, row in enumerate(indices):
                sources[row], positions[row] = name, cursor.of(name) + number * step
        return extras | self._segmenter.extras(tokens, begins, sources, positions)

    def _positions(
        self, shape: tuple[int, ...], rows_of: Mapping[str, list[int]], cursor: Cursor, step: int
    ) -> np.ndarray:
        """Return the position of each token of the rows in its stream, [B, T]; below 0 for what fills up a row."""
        found, (_, length) = np.empty(shape, dtype=np.int64), shape
        for name, indices in rows_of.items():
            if indices:
                first, count = self._first(cursor.of(name), step), (len(indices) - 1) * step + length
                found[indices] = sliding_window_view(self._of(name, step).positions(first, count), length)[::step]
        return found

    def row_fill(self, name: str, length: int, overlap: int) -> RowFill | None:
        """Return what fills the rows of a source in its first pass; None where rows are cut from a stream.

        Args:
            name: of the source.
            length, overlap: of its rows, as for `read`.
        """
        return self._of(name, length - overlap).row_fill() if self._is_packed else None

    def _taken(self, cursor: Cursor) -> dict[str, int]:
        unknown = sorted(name for name, _ in cursor.positions if name not in self._shares)
        if unknown:
            raise DataError(
                f"the cursor is in {', '.join(unknown)}, which this mixture does not read",
                where="the data position of a checkpoint",
                hint="resume with the mixture that the run started with",
            )
        return {name: cursor.of(name) for name in self._shares}


def _whole_shares(weights: Mapping[str, float]) -> dict[str, int]:
    """Weights as whole numbers in the same proportions, by name: what is compared exactly does not depend on rounding.

    A weight is the decimal number that was written: 0.1 is a tenth, not the nearest binary fraction.
    """
    exact = {name: Fraction(str(float(weights[name]))) for name in sorted(weights)}
    scale = lcm(*(weight.denominator for weight in exact.values()))
    return {name: int(weight * scale) for name, weight in exact.items()}
