"""The ids of texts of any length, in pieces, so that all the memory that a long text takes is that of its ids."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from tokenizers import Tokenizer

from lilliput.base.errors import DataError
from lilliput.base.limits import limit, raising
from lilliput.tokenizer.cuts import cuts_of, inert_parts
from lilliput.tokenizer.fast_bpe import FastBPE
from lilliput.tokenizer.merging import Merger
from lilliput.tokenizer.specials import literal

PIECE = 8_192
"""Characters of a piece at most, where there are cuts."""
_BATCH = 131_072
"""Bytes of text that native code encodes at a time, on every core; it takes some 20 MB for them."""
_PROBES = ("a", "b a")


class _Word(NamedTuple):
    """A word that is too long to be encoded at once."""

    text: str


_Unit = str | _Word | None
"""Something to encode; None is the end of a text."""


class Encoder:
    """Encodes texts to the ids that a tokenizer gives, in pieces.

    Where it is not known where a text may be cut (see `lilliput.tokenizer.cuts`), it is encoded at once, as long as it
    is within the limit `uncut_bytes`.

    Args:
        tokenizer: is not to change any more.
        where: the texts come from, for errors.
        piece: characters of a piece at most, where there are cuts.
        code: type of the arrays of ids, as `array` names it.
    """

    def __init__(self, tokenizer: Tokenizer, where: str = "a text to encode", *, piece: int = PIECE, code: str = "I"):
        self._tokenizer, self._where, self._piece, self._code = tokenizer, where, piece, code
        self._cuts = cuts_of(tokenizer)

    def encode(self, text: str, *, add_special_tokens: bool = False) -> "array[int]":
        """The ids of a text; see `stream`."""
        return next(self.stream([text], add_special_tokens=add_special_tokens))

    def stream(self, texts: Iterable[str], *, add_special_tokens: bool = False) -> Iterator["array[int]"]:
        """Yield the ids of each text.

        Args:
            texts: are read somewhat ahead.
            add_special_tokens: with what the tokenizer puts before and after a text.

        Raises:
            DataError: a text that has to be encoded at once is too long for that.
        """
        around = self.around if add_special_tokens else ([], [])
        before, after = around or ([], [])
        ids = array(self._code, before)
        for batch in _batches(self._units(texts, is_cut=around is not None)):
            plain = [unit for unit in batch if isinstance(unit, str)]
            encoded = self._encoded(plain, add_special_tokens=around is None)
            for unit in batch:
                if isinstance(unit, str):
                    ids.extend(next(encoded))
                elif unit is not None:
                    self._merger.add(ids, unit.text)
                else:
                    ids.extend(after)
                    yield ids
                    ids = array(self._code, before)

    @cached_property
    def around(self) -> tuple[list[int], list[int]] | None:
        """Return what the tokenizer puts before and after a text; None where that is not plain to see."""
        found = []
        for probe in _PROBES:
            whole, bare = (self._tokenizer.encode(probe, add_special_tokens=added).ids for added in (True, False))
            starts = [start for start in range(len(whole)) if whole[start : start + len(bare)] == bare]
            if not bare or len(starts) != 1:
                return None
            found.append((whole[: starts[0]], whole[starts[0] + len(bare) :]))
        return found[0] if found[0] == found[1] else None

    def parts(self, text: str, most: int) -> Iterator[tuple[str, bool]]:
        """Cut a text into parts whose ids, joined, are its own, of `most` characters where there are cuts.

        Yields:
            a part, and whether it is the last one. Where `around` is None, the text is its only part.
        """
        if self._cuts is None or self.around is None or len(text) <= most:
            yield text, True
            return
        for start, end, _ in self._cuts.pieces(text, most):
            yield text[start:end], end == len(text)

    def is_joint(self, head: str, rest: str) -> bool:
        """Return whether a text has the ids of its head, followed by those of its rest without special tokens.

        False where that is not known, and where the tokenizer ends a text with special tokens.
        """
        if self._cuts is None or self.around is None or self.around[1] or not (head and rest):
            return False
        return self._cuts.is_cut(head + rest, len(head))

    @cached_property
    def plain(self) -> "Encoder":
        """The encoder that reads special tokens in a text as plain characters."""
        return Encoder(literal(self._tokenizer), self._where, piece=self._piece, code=self._code)

    def _encoded(self, texts: list[str], *, add_special_tokens: bool) -> Iterator[Iterable[int]]:
        if self._fast is not None and not add_special_tokens:
            return iter(self._fast.encode_batch(texts))
        return (one.ids for one in self._tokenizer.encode_batch_fast(texts, add_special_tokens=add_special_tokens))

    def with_heads(self, texts: Sequence[str], heads: Sequence[str]) -> Iterator[tuple["array[int]", int]]:
        """Yield the ids of each text, and how many of them begin within the head that it begins with.

        Raises:
            DataError: a text that has to be encoded at once is too long for that.
        """
        encodings = (
            encoding
            for batch in _batches(text for text in texts if len(text) <= self._piece)
            for encoding in self._tokenizer.encode_batch(batch, add_special_tokens=False)
        )
        for text, head in zip(texts, heads, strict=True):
            if len(text) <= self._piece:
                encoding = next(encodings)
                ids, count = array(self._code, encoding.ids), _tokens_within(encoding, head)
            else:
                ids, encoding = self.encode(text), self._at_once(text[: len(head) + self._piece])
                count = _tokens_within(encoding, head)
                if encoding.ids[: count + 1] != ids[: count + 1].tolist():  # else they take up the same characters
                    count = _tokens_within(self._at_once(text), head)
            yield ids, count

    def _units(self, texts: Iterable[str], *, is_cut: bool) -> Iterator[_Unit]:
        for text in texts:
            if self._cuts is None or not is_cut:
                yield self._checked(text)
            else:
                for start, end, is_long in self._cuts.pieces(text, self._piece):
                    yield from self._of_long(text[start:end]) if is_long else (text[start:end],)
            yield None

    def _of_long(self, piece: str) -> Iterator[_Unit]:
        """The words of a piece without cuts."""
        cuts = self._cuts
        assert cuts is not None
        if cuts.composes:
            parts = inert_parts(piece, self._piece)
            words = cuts.words_of("".join(map(self._tokenizer.normalizer.normalize_str, parts)))
        else:
            words = cuts.words_of(piece)
        if words is None or cuts.takes(piece):
            yield self._checked(piece)
            return
        most = max(self._piece, self._merger.longest)
        for word in words:
            yield word if len(word) <= most else _Word(word)

    def _checked(self, text: str) -> str:
        most = limit("uncut_bytes")
        if 4 * len(text) > most and len(text.encode("utf-8", "surrogatepass")) > most:
            raise DataError(
                f"{len(text):,} characters must be encoded at once: it is not known where this tokenizer splits text",
                where=self._where,
                hint=f"cut the text into several, or leave it out; {raising('uncut_bytes')}",
            )
        return text

    def _at_once(self, text: str):
        return self._tokenizer.encode(self._checked(text), add_special_tokens=False)

    @cached_property
    def _fast(self) -> FastBPE | None:
        return FastBPE.of(self._tokenizer, self._code)  # takes tens of milliseconds

    @cached_property
    def _merger(self) -> Merger:
        return Merger(self._tokenizer, self._piece)


def _batches(units: Iterable[_Unit]) -> Iterator[list]:
    """So many units that native code has `_BATCH` bytes of them to encode at most, if one alone has not more."""
    batch, filled = [], 0
    for unit in units:
        size = len(unit.encode("utf-8", "surrogatepass")) if isinstance(unit, str) else 0
        if filled + size > _BATCH and filled:
            yield batch
            batch, filled = [], 0
        batch.append(unit)
        filled += size
    if batch:
        yield batch


def _tokens_within(encoding, head: str) -> int:
    """Tokens of a text that begin within its head."""
    return sum(start < len(head) for start, _ in encoding.offsets)
