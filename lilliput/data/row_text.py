"""A training row in words: the documents in it, decoded, and which of their tokens are targets."""

from dataclasses import dataclass
from itertools import groupby

import numpy as np
from tokenizers import Tokenizer

from lilliput.data.batch import Batch


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Tokens in a row that are all targets, or all none."""

    text: str
    tokens: int
    is_target: bool


@dataclass(frozen=True, kw_only=True)
class RowDocument:
    """Part of a row that is one document, or the end or the beginning of one."""

    begins: bool
    """True if the row has its first token."""
    stretches: tuple[Stretch, ...]
    """Empty for what fills up the row."""
    tokens: int

    @property
    def targets(self) -> int:
        """Return how many of its tokens are targets."""
        return sum(stretch.tokens for stretch in self.stretches if stretch.is_target)


def row_documents(
    batch: Batch, row: int, tokenizer: Tokenizer, end: int, *, overlap: int, is_packed: bool
) -> list[RowDocument]:
    """The documents of a row of a batch, in order.

    A character whose bytes are tokens on both sides of a border is shown as U+FFFD.

    Args:
        batch: of token rows.
        row: index of the row in it.
        tokenizer: that the ids are of.
        end: the id that begins documents in a stream, and fills up packed rows.
        overlap: tokens at the beginning of the row that are none of its targets.
        is_packed: whether the row holds its documents whole.
    """
    ids, owners = batch.tokens[row].numpy(), batch.document_ids[row].numpy()
    is_target = batch.weight[row].numpy() > 0
    is_target[:overlap] = False
    found = []
    for number in range(int(owners[0]), int(owners[-1]) + 1):
        own, targets = ids[owners == number], is_target[owners == number]
        is_filling = is_packed and bool((own == end).all())
        stretches = () if is_filling else tuple(_stretches(own, targets, tokenizer))
        found.append(RowDocument(begins=is_packed or bool(own[0] == end), stretches=stretches, tokens=len(own)))
    return found


def _stretches(ids: np.ndarray, targets: np.ndarray, tokenizer: Tokenizer) -> list[Stretch]:
    pairs = zip(ids.tolist(), targets.tolist(), strict=True)
    found = []
    for is_target, some in groupby(pairs, key=lambda pair: pair[1]):
        part = [token for token, _ in some]
        text = tokenizer.decode(part, skip_special_tokens=False)
        found.append(Stretch(text=text, tokens=len(part), is_target=is_target))
    return found
