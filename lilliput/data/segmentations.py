"""Several tokenizations of the same text, for training on all of them at once.

The first is that of the token files; the others are drawn by BPE with dropout, word by word, as a function of the seed,
the source and the place in it: neither ranks nor micro-batches nor a resumed run change what is drawn. This is
augmentation: a step reads no more text than without it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import inf
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from lilliput.base.files import seed_of
from lilliput.base.spec import check_range
from lilliput.tokenizer.bpe_dropout import DRAWS, BPEDropout
from lilliput.tokenizer.words import Words

IDS, ENDS = "segmentations/ids", "segmentations/ends"
"""Extras of a batch: ids of the drawn tokenizations [B, M - 1, N], and where tokens of all of them end [B, M, N]."""
BEYOND = 2**30
"""End of the slots that fill up a row."""
MOST = 4
"""Tokens of one tokenization between two places where all have a border. A word with more keeps its own tokens."""
ROOM = 2
"""A drawn tokenization of a row has at most so many times its tokens; from where it would have more, none is drawn."""


@dataclass(frozen=True, kw_only=True)
class Segmentations:
    """Tokenizations of every row of a mixture, for `StochasticTokens`."""

    count: int = 4
    """Number of tokenizations, that of the token files included; an objective may use fewer."""
    dropout: float = 0.1
    """The probability that BPE passes over a merge."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("Segmentations", 2, inf, count=self.count)
        check_range("Segmentations", 0, 1, dropout=self.dropout)


def repeated(tokens: Tensor, count: int) -> dict[str, Tensor]:
    """Return extras as of a dropout of 0, a byte a token: of rows [B, T] that are no text, such as a probe's."""
    rows, length = tokens.shape
    ids = torch.zeros(rows, count - 1, ROOM * length, dtype=torch.int32)
    ends = torch.full((rows, count, ROOM * length), BEYOND, dtype=torch.int32)
    ids[:, :, :length], ends[:, :, :length] = tokens[:, None], torch.arange(1, length + 1)
    return {IDS: ids, ENDS: ends}


class Segmenter:
    """Draws the tokenizations of rows, of one tokenizer."""

    def __init__(self, spec: Segmentations, tokenizer: Tokenizer):
        self._count, self._seed = spec.count, spec.seed
        self._bpe, self._words = BPEDropout(tokenizer, spec.dropout, spec.seed), Words(tokenizer)

    def extras(
        self, tokens: np.ndarray, begins: np.ndarray, sources: list[str], positions: np.ndarray
    ) -> dict[str, Tensor]:
        """Return the extras of rows.

        Args:
            tokens: [B, T].
            begins: which of them begin a document, or a piece of one, [B, T].
            sources: name of the source of each row.
            positions: in its source, of the first token of each row, [B].
        """
        rows, length = tokens.shape
        ids = np.zeros((rows, self._count, ROOM * length), dtype=np.int32)
        ends = np.full((rows, self._count, ROOM * length), BEYOND, dtype=np.int32)
        for row in range(rows):
            numbers = self._numbers(sources[row], int(positions[row]), length)
            for place, one in enumerate(self._row(tokens[row].tolist(), np.flatnonzero(begins[row]).tolist(), numbers)):
                ids[row, place, : len(one.ids)] = one.ids
                ends[row, place, : len(one.ids)] = np.cumsum(one.sizes)
        return {IDS: torch.from_numpy(ids[:, 1:]), ENDS: torch.from_numpy(ends)}

    def _numbers(self, source: str, position: int, length: int) -> list[list[int]]:
        """Return the numbers of draws at each place of a row, [T, M - 1]."""
        places = np.arange(position, position + length, dtype=np.uint64)[:, None]
        seeds = [seed_of(f"{self._seed}/{source}/{place}") for place in range(1, self._count)]
        mixed = (places + np.array(seeds, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)  # SplitMix64
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((mixed ^ (mixed >> np.uint64(31))) % np.uint64(DRAWS)).tolist()

    def _row(self, ids: list[int], begins: list[int], numbers: list[list[int]]) -> "list[_Segmentation]":
        found = [_Segmentation([], []) for _ in range(self._count)]
        for start, tokens, letters in self._words_of(ids, begins):
            word = tuple(ids[start : start + tokens])
            own = word, tuple(self._words.sizes(word)) if letters else (1,)  # what stands for no text has a place, too
            drawn = [own] * self._count
            if len(letters) > 1:
                drawn[1:] = [self._bpe.draw(letters, number) for number in numbers[start]]
                if any(one[0] != word for one in drawn) and not self._fits(found, drawn, len(ids), start + tokens):
                    drawn = [own] * self._count
            for one, (more, sizes) in zip(found, drawn, strict=True):
                one.ids.extend(more)
                one.sizes.extend(sizes)
        return found

    def _fits(self, found: "list[_Segmentation]", drawn: list[Any], length: int, after: int) -> bool:
        """Return whether a word leaves each tokenization room for the rest of a row, and no slot too many tokens."""
        room = (ROOM - 1) * length + after
        return _widest([sizes for _, sizes in drawn]) <= MOST and all(
            len(one.ids) + len(more) <= room for one, (more, _) in zip(found, drawn, strict=True)
        )

    def _words_of(self, ids: list[int], begins: list[int]) -> Iterator[tuple[int, int, str]]:
        """Yield where each word begins, its tokens and its letters; no word crosses into another piece."""
        for start, end in zip([0, *begins], [*begins, len(ids)], strict=True):
            for tokens, letters in self._words.of(ids[start:end]):
                yield start, tokens, letters
                start += tokens


class _Segmentation(NamedTuple):
    """One tokenization of a row."""

    ids: list[int]
    sizes: list[int]
    """Bytes of each token."""


def _widest(segmentations: list[Sequence[int]]) -> int:
    """Return the most tokens that one tokenization of a word has between two borders of all."""
    ends = [list(accumulate(sizes)) for sizes in segmentations]
    common = sorted(set(ends[0]).intersection(*ends[1:]))
    places = [[0, *(one.index(border) + 1 for border in common)] for one in ends]
    return max(after - before for each in places for before, after in pairwise(each))
