"""Pairs of answers, encoded once and packed whole into rows: the chosen side of each, then the rejected one.

Token files are those of `packed_rows.py`. Pair k of a row is its documents 2k and 2k + 1, each with the whole prompt,
and a target is a token that the assistant answers for after the prompt, the closing one too.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from lilliput.base.background import run_in_background
from lilliput.base.errors import DataError
from lilliput.base.files import new_folder
from lilliput.base.hash_cache import HashCache
from lilliput.data.batch import Batch
from lilliput.data.chat_rows import ROLES, Encoded, as_text, first_kept, without_unlearned
from lilliput.data.dropped import DropSamples, iterate
from lilliput.data.lost_conversations import in_words
from lilliput.data.packed_rows import ARRAYS, IdsAndMask, PackedRows, RowWriter, byte_lengths, file_name
from lilliput.data.pairs import Pair, PairCorpus, is_tie
from lilliput.data.split import HeldOut
from lilliput.data.token_files import SIDES, Side, counted, new_index, seal_index
from lilliput.tokenizer.bpe import END
from lilliput.tokenizer.chatml import encode_messages

REFERENCE = "reference"
"""Extra of a batch, [B, P, 2]: the reference's log-probabilities of the chosen and the rejected answer of each pair."""
_BATCH_PAIRS = 1_024


def write_pairs(
    corpus: PairCorpus, tokenizer: Tokenizer, split: HeldOut, folder: Path, length: int, end: str = END
) -> dict[str, Any]:
    """Encode and pack pairs into a folder, which appears whole or not at all.

    A pair too long for a row loses the oldest turns of its prompt on both sides, never its system prompt nor part of a
    turn. One that is still too long, with equal answers or with an unknown role, is dropped.

    Args:
        corpus: the pairs.
        tokenizer: has the ChatML tokens.
        split: decides by a pair's prompt which side it lands on.
        folder: is replaced if it is there.
        length: T, tokens of a row.
        end: the tokenizer's token that ends documents; here it fills up rows.

    Returns:
        The index: as of conversations, with `pairs` of each side, and `pairs_per_row`, the most that a row has.

    Raises:
        DataError: the tokenizer has no ChatML tokens, or no pair is left to train on.
    """
    index = new_index("pairs", tokenizer, end) | {"length": length}
    with new_folder(folder) as partial:
        with ExitStack() as stack:
            dropped = stack.enter_context(DropSamples(partial))
            writers = {side: stack.enter_context(_Writer(side, partial, index)) for side in SIDES}
            for batch in _batches(dropped.kept(iterate(corpus, "pairs"))):
                messages = [message for pair in batch for message in (*pair.prompt, *pair.chosen, *pair.rejected)]
                encoded = iter(without_unlearned(messages, run_in_background(encode_messages, tokenizer, messages)))
                for pair in batch:
                    side: Side = "heldout" if split.is_heldout(pair.group) else "train"
                    parts = ([next(encoded) for _ in part] for part in (pair.prompt, pair.chosen, pair.rejected))
                    reason = writers[side].add_pair(pair, *parts)
                    if reason is not None:
                        dropped.add(reason, pair.id, as_text((*pair.prompt, *pair.chosen, *pair.rejected)))
        if not writers["train"].rows:
            reasons = in_words({**dropped.by_corpus, **writers["train"].dropped}) or "all of it is held out"
            raise DataError(
                "no pair is left to train on",
                where=f"the pairs of {folder.name}: {reasons}",
                hint="raise the row length, or hold out a smaller share",
            )
        index["files"] = [{"name": file_name(side, array)} for side in SIDES for array in ARRAYS]
        index["sides"] = {side: writers[side].totals() for side in SIDES}
        index["pairs_per_row"] = max(writer.most_items for writer in writers.values())
        return seal_index(partial, index)


class PackedPairs(PackedRows):
    """A folder that `write_pairs` wrote, verified and open for reading.

    Args:
        folder: the folder.
        tokenizer_hash: the tokenizer that the ids must be of; None accepts any.
        verified: knows which files need not be hashed again.

    Raises:
        DataError: a file is missing or differs from the index, or the ids are of another tokenizer.
    """

    def __init__(self, folder: Path, tokenizer_hash: str | None = None, verified: HashCache | None = None):
        super().__init__(folder, "pairs", tokenizer_hash, verified, _lengths)
        self._reference: Mapping[str, np.ndarray] = {}

    @property
    def heldout_size(self) -> int:
        """Pairs that are held out."""
        return self.index["sides"]["heldout"]["pairs"]

    @property
    def pairs_per_row(self) -> int:
        """P, the most pairs of a row."""
        return self.index["pairs_per_row"]

    def take(self, side: Side, indices: Sequence[int] | np.ndarray) -> Batch:
        """The rows at these indices, with the reference's log-probabilities where there are some."""
        batch = super().take(side, indices)
        if not self._reference:
            return batch
        values = torch.from_numpy(self._reference[side][np.asarray(indices)])
        return replace(batch, extras={REFERENCE: values})

    def with_reference(self, reference: Mapping[str, np.ndarray]) -> "PackedPairs":
        """The same with a reference's log-probabilities by side, float32 [rows, P, 2]."""
        found = copy(self)
        found._reference = reference
        return found

    def reference_of(self, side: Side) -> np.ndarray:
        """Return those of a side."""
        return self._reference[side]

    def heldout_loss(self, total: float, targets: float) -> float:
        """Nats per token of an answer, chosen or rejected."""
        return total / targets


class _Writer(RowWriter):
    """The files of one side, and counts of it."""

    def __init__(self, side: Side, folder: Path, index: Mapping[str, Any]):
        super().__init__(side, folder, index)
        self.counts = {"pairs": 0, "tokens": 0, "targets": 0, "shortened": 0}
        self.dropped: Counter[str] = Counter()

    def add_pair(self, pair: Pair, prompt: Encoded, chosen: Encoded, rejected: Encoded) -> str | None:
        """Take a pair, shortened if need be; return the reason if it is dropped."""
        room = self._length - sum(len(ids) for ids, _ in (*chosen, *rejected))
        head, first = first_kept(pair.prompt, [2 * len(ids) for ids, _ in prompt], room)
        kept = [*prompt[:head], *prompt[first:]]
        read = [(ids, [0] * len(ids)) for ids, _ in kept]
        sides = [_joined(read, chosen), _joined(read, rejected)]
        size = sum(len(ids) for ids, _ in sides)
        reason = self._reason(pair, sides)
        if reason is not None:
            self.dropped[reason] += 1
            return reason
        self.counts["shortened"] += len(kept) < len(prompt)
        self.counts["pairs"] += 1
        self.counts["tokens"] += size
        self.counts["targets"] += sum(sum(mask) for _, mask in sides)
        self.add(*sides)
        return None

    def _reason(self, pair: Pair, sides: Sequence[IdsAndMask]) -> str | None:
        """The reason for dropping a pair whose sides are these; None if it stays."""
        if any(message.role not in ROLES for message in (*pair.prompt, *pair.chosen, *pair.rejected)):
            return "with an unknown role"
        if is_tie(pair):
            return "with the same answer twice"
        if not all(any(mask) for _, mask in sides):
            return "without an answer of an assistant"
        return "longer than a row" if sum(len(ids) for ids, _ in sides) > self._length else None

    def totals(self) -> dict[str, Any]:
        """Counts of the side."""
        return {"rows": self.rows} | self.counts | {"dropped": dict(sorted(self.dropped.items()))}


def _joined(*parts: Encoded) -> tuple[list[int], list[int]]:
    ids = [token for part in parts for one, _ in part for token in one]
    return ids, [weight for part in parts for _, one in part for weight in one]


def _batches(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    batch: list[Pair] = []
    for pair in pairs:
        batch.append(pair)
        if len(batch) == _BATCH_PAIRS:
            yield batch
            batch = []
    if batch:
        yield batch


def _lengths(index: dict[str, Any]) -> dict[str, int]:
    """Bytes of the numbers of every file by an index; see `open_index`."""
    lengths = byte_lengths(index, ("pairs", "tokens", "targets"))
    if not counted(index["pairs_per_row"]) or {file["name"] for file in index["files"]} != lengths.keys():
        raise ValueError(f"{len(index['files'])} files, {index['pairs_per_row']} pairs in a row")
    return lengths
