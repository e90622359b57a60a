"""Prompts from the held-out side of corpora: how documents begin, and conversations up to their first answer.

The same token files give the same prompts, those of the first documents and rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import Any

import numpy as np

from lilliput.data.encoded_documents import document_texts, encoded_documents
from lilliput.data.packed_rows import PackedRows
from lilliput.data.shards import Shards

BEGINNING = 16
"""Tokens of a document that a prompt has; of one with fewer than twice as many, its first half."""
LONGEST = 128
"""Tokens of a conversation's beginning at most: a longer one is left out."""
_ROWS = 64
"""Packed rows that are searched for prompts."""


@dataclass(frozen=True, kw_only=True)
class HeldoutPrompt:
    """The beginning of something that is held out, as training reads it."""

    corpus: str
    ids: Sequence[int]
    """Token ids, with the end token before a document, and up to an answer's header in a conversation."""
    text: str
    """As people read it."""


def heldout_prompts(tokens: Mapping[str, Any], count: int) -> list[HeldoutPrompt]:
    """Return prompts of the corpora by turns; fewer where there are not so many.

    Args:
        tokens: opened token files by corpus, which know their tokenizer; files of formats without documents or answers
            have no prompts.
        count: of prompts at most.
    """
    sources = [_of_corpus(name, files) for name, files in tokens.items()]
    by_turns = chain.from_iterable(zip_longest(*sources))
    return list(islice((one for one in by_turns if one is not None), count))


def _of_corpus(name: str, files: Any) -> Iterator[HeldoutPrompt]:
    known: set[tuple[int, ...]] = set()
    for before, ids in _beginnings(files):
        prompt = (*before, *ids.tolist())
        if prompt not in known:  # both answers of a pair have one prompt, and many documents may begin with a license
            known.add(prompt)
            (text,) = document_texts([ids], files.tokenizer)
            yield HeldoutPrompt(corpus=name, ids=prompt, text=text)


def _beginnings(files: Any) -> Iterator[tuple[Sequence[int], np.ndarray]]:
    """Yield what comes before a beginning, and its ids [N]."""
    if isinstance(files, Shards):
        documents = chain.from_iterable(encoded_documents(files, "heldout"))
        long_enough = (ids for ids in documents if len(ids) > 1)
        return (([files.end], ids[: min(BEGINNING, len(ids) // 2)]) for ids in long_enough)
    return (((), ids) for ids in _before_answers(files)) if isinstance(files, PackedRows) else iter(())


def _before_answers(rows: PackedRows) -> Iterator[np.ndarray]:
    """The documents of the first rows, each up to its first target, where that is not too far."""
    for row in range(min(_ROWS, rows.count("heldout"))):
        batch = rows.take("heldout", [row])
        ids, targets, owners = batch.tokens[0].numpy(), batch.weight[0].numpy() > 0, batch.document_ids[0].numpy()
        for owner in np.unique(owners[targets]):
            begin = int(np.argmax(owners == owner))
            end = int(np.argmax(targets & (owners == owner)))
            if 0 < end - begin <= LONGEST:
                yield ids[begin:end]
