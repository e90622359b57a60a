"""The words of a text that is given by its tokens: BPE sees one at a time, and merges nothing across their ends."""

import codecs
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tokenizers import Tokenizer

from lilliput.tokenizer.merging import byte_of


class Word(NamedTuple):
    """A word, or what a row holds of it."""

    tokens: int
    """Number of tokens."""
    letters: str
    """Its bytes as letters, one each; empty for a token that stands for no text."""


class Words:
    """Finds words among the tokens of a tokenizer with BPE over bytes; see `lilliput.tokenizer.cuts`."""

    def __init__(self, tokenizer: Tokenizer):
        vocab: dict[str, int] = json.loads(tokenizer.model.__getstate__())["vocab"]
        special = tokenizer.get_added_tokens_decoder()
        self._letters = {identity: token for token, identity in vocab.items() if identity not in special}
        self._pre_tokenizer = tokenizer.pre_tokenizer

    def sizes(self, ids: Sequence[int]) -> list[int]:
        """Return the bytes of tokens that stand for text."""
        return [len(self._letters[identity]) for identity in ids]

    def of(self, ids: Sequence[int]) -> Iterator[Word]:
        """Yield the words of tokens that follow each other in one document, whose ends may lie within a word."""
        start = 0
        for place, identity in enumerate(ids):
            if identity not in self._letters:
                yield from self._of_text(ids[start:place])
                yield Word(1, "")
                start = place + 1
        yield from self._of_text(ids[start:])

    def _of_text(self, ids: Sequence[int]) -> Iterator[Word]:
        parts = [self._letters[identity] for identity in ids]
        ends, tokens, size, letters = self._ends("".join(parts)), 0, 0, ""
        for part in parts:
            tokens, size, letters = tokens + 1, size + len(part), letters + part
            if size in ends:
                yield Word(tokens, letters)
                tokens, letters = 0, ""
        if tokens:
            yield Word(tokens, letters)

    def _ends(self, letters: str) -> set[int]:
        """Return the bytes that have passed at the end of each word; what is no text at either end is cut off."""
        data = bytes(map(byte_of, letters))
        start = next((place for place, byte in enumerate(data[:4]) if byte & 0xC0 != 0x80), 0)
        text, used = codecs.utf_8_decode(data[start:], "replace", False)
        ends, size = {start, start + used}, start
        for word, _ in self._pre_tokenizer.pre_tokenize_str(text):
            size += len(word)
            ends.add(size)
        return ends
