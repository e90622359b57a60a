"""Finds places to cut a text so that the joined ids of its pieces are the ids of the text.

The tokenizers library holds some 150 bytes for each byte of a text that it encodes, so long texts are encoded in
pieces. A wrong cut would change ids without a word: there are cuts only where a tokenizer's rules are known to the
letter.

Why the cuts are right. A pre-tokenizer takes words off a text from left to right, each of them what its regular
expression matches where the last one ended, and BPE sees one word at a time. So a cut changes nothing where

1. no word holds the character before it together with the one after it,
2. no word before it depends on what comes after it, and
3. no word after it depends on what came before it.

The third holds everywhere, for none of these expressions looks behind. As to the second, they look ahead in `(?!\\S)`
alone, at the end of blanks, so no cut is made after a blank; and where a class such as `\\p{L}+` ends at a character
that is none of its own, it ends at the end of a piece too. As to the first, no alternative of the expressions has

- a letter and then something else: the letters are what ends a match, in contractions too;
- a number and then something else: numbers end a match too;
- something and then a blank: blanks come first or alone. Newer expressions have line breaks after punctuation, so that
  among blanks there, a line break is none.

Where each number is a word by itself, there is a cut before and after it in numbers, too.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

_NEAR = 64
"""Characters before the end of a piece in which a cut is looked for first."""
_AHEAD = 4_096
"""Characters beyond a piece in which a cut is looked for at a time."""


class Piece(NamedTuple):
    """A part of a text between two cuts."""

    start: int
    end: int
    is_long: bool
    """It has more characters than a piece should have, for there is no cut in so many."""


@dataclass(frozen=True, kw_only=True)
class Cuts:
    """Places where the texts of one tokenizer may be cut. Made by `cuts_of`."""

    shapes: "Shapes"
    """Shapes of characters that the rules tell apart."""
    cut: re.Pattern[str]
    """Matches, with nothing in the match, at each cut of a shape."""
    words: re.Pattern[str] | None
    """Matches the words of a piece's shape, each where the last one ended; None where that is not known."""
    composes: bool
    """Characters are composed (NFC) before they are looked at."""
    taken: tuple[str, ...]
    """Tokens that are taken out of a text by their spelling, before it is looked at."""

    def pieces(self, text: str, most: int) -> Iterator[Piece]:
        """Cut a text, into pieces of `most` characters at most where there are cuts."""
        start = 0
        while len(text) - start > most:
            end = self._last(text, start, start + most)
            if end is None:
                end = self._first(text, start + most)
                yield Piece(start, end, True)
            else:
                yield Piece(start, end, False)
            start = end
        if start < len(text) or not text:
            yield Piece(start, len(text), False)

    def around(self, text: str, index: int, start: int = 0) -> tuple[int, int]:
        """Return the cuts nearest to a character, before and after it; the ends of the text are cuts, and `start`."""
        last = self._last(text, start, index)
        return start if last is None else last, self._first(text, index, _NEAR)

    def is_cut(self, text: str, index: int) -> bool:
        """Return whether a text may be cut before a character that is not its first."""
        return bool(self._places(text, index - 1, index)) and self._is_free(text, index)

    def words_of(self, piece: str) -> Iterator[str] | None:
        """The words of a piece whose characters are composed; None where they are not known."""
        if self.words is None or _UNCLEAR in (shape := self.shapes.of(piece)):
            return None
        return (piece[found.start() : found.end()] for found in self.words.finditer(shape))

    def takes(self, text: str) -> bool:
        """Return whether the text spells out a token that is taken out of it."""
        return any(token in text for token in self.taken)

    def _last(self, text: str, start: int, end: int) -> int | None:
        """The last cut after `start`, up to `end`."""
        for first in (max(start, end - _NEAR), start):
            for cut in reversed(self._places(text, first, end)):
                if self._is_free(text, cut):
                    return cut
        return None

    def _first(self, text: str, after: int, ahead: int = _AHEAD) -> int:
        """The first cut after a position, or the end of the text; looked for in so many characters at a time."""
        for first in range(after, len(text) - 1, ahead):
            for cut in self._places(text, first, min(first + ahead, len(text) - 1)):
                if self._is_free(text, cut):
                    return cut
        return len(text)

    def _places(self, text: str, first: int, last: int) -> list[int]:
        """Cuts by the shape alone, after `first` and up to `last`, beside which there is another character."""
        cuts = (first + found.start() for found in self.cut.finditer(self.shapes.of(text[first : last + 1])))
        return [cut for cut in cuts if first < cut <= last]

    def _is_free(self, text: str, cut: int) -> bool:
        if self.composes and not (is_inert(text[cut - 1]) and is_inert(text[cut])):
            return False
        # A token may take the blanks beside it along, or ask what stands there, so that cuts keep clear of it.
        return not any(token in text[max(0, cut - len(token)) : cut + len(token)] for token in self.taken)


def cuts_of(tokenizer: Tokenizer) -> Cuts | None:
    """Return where the texts of a tokenizer may be cut; None where that is not known."""
    normalizer, before = _plain(tokenizer.normalizer), _plain(tokenizer.pre_tokenizer)
    hides = tokenizer.encode_special_tokens
    taken = [token for token in tokenizer.get_added_tokens_decoder().values() if not (hides and token.special)]
    if normalizer not in ({}, {"type": "NFC"}) or (normalizer and any(token.normalized for token in taken)):
        return None
    by = _by_metaspace(before) if before.get("type") == "Metaspace" else _by_bytes(before, tokenizer.model)
    if by is None:
        return None
    shapes, cut, words = by
    return Cuts(
        shapes=shapes,
        cut=re.compile(cut),
        words=re.compile(words) if words else None,
        composes=bool(normalizer),
        taken=tuple(token.content for token in taken),
    )


_By = tuple["Shapes", str, str]
"""The shapes of texts; the expressions for cuts and for words, the latter empty where words are not known."""


def _by_metaspace(step: Mapping[str, Any]) -> _By | None:
    """Every blank begins a word; and what begins with one is not given another, as the beginning of a text may be."""
    return (_BY_KIND, "(?= )", "") if step.get("split") and step.get("replacement") == "▁" else None


_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
_LETTER = "[A-Za-z\u017f]"
"""A letter of a shape: `(?i:'s)` matches a long s as well."""


def _by_bytes(before: Mapping[str, Any], model: Any) -> _By | None:
    """Known expressions, then BPE over the bytes of a word."""
    *steps, last = before.get("pretokenizers", [before])
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space") or not _is_plain(model):
        return None
    uses_regex = last.get("use_regex", True)
    match [step.get("pattern", {}).get("Regex", step["type"]) for step in steps]:
        case [] if uses_regex:
            rule = _GPT2
        case ["Digits"] if uses_regex and steps[0].get("individual_digits"):
            return (
                _BY_DIGIT,
                rf"(?<={_LETTER})(?!{_LETTER})|(?<=0)|(?<=[^\s])(?=\s)",
                rf"0|'s|'t|'re|'ve|'m|'ll|'d| ?{_LETTER}+| ?[!']+|\s+(?![^\s0])|\s+",  # at a number, the rest ends
            )
        case [str(regex)] if not uses_regex and steps[0].get("behavior") == "Isolated" and not steps[0].get("invert"):
            rule = regex
        case _:
            return None
    if rule == _GPT2:
        return (
            _BY_KIND,
            rf"(?<={_LETTER})(?!{_LETTER})|(?<=0)(?!0)|(?<=\S)(?=\s)",
            rf"'s|'t|'re|'ve|'m|'ll|'d| ?{_LETTER}+| ?0+| ?[!']+|\s+(?!\S)|\s+",
        )
    if rule not in (LLAMA3, QWEN2):
        return None
    numbers, before_numbers = ("0{1,3}", "(?!0)") if rule == LLAMA3 else ("0", "")
    return (
        _BY_KIND,
        rf"(?<={_LETTER})(?!{_LETTER})|(?<=0){before_numbers}|(?<=\S)(?=[^\S\r\n])",
        rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[!'\t ]?{_LETTER}+|{numbers}| ?[!']+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    )


def _is_plain(model: Any) -> bool:
    """Return whether it merges any bytes, by rank alone and the same every time."""
    return (
        isinstance(model, models.BPE)
        and not (model.dropout or model.continuing_subword_prefix or model.end_of_word_suffix)
        and None not in map(model.token_to_id, pre_tokenizers.ByteLevel.alphabet())
    )


def _plain(step: Any) -> dict[str, Any]:
    """A step of a tokenizer as its file has it."""
    return {} if step is None else json.loads(step.__getstate__())


class Shapes(dict[int, str]):
    """The kind of each character, by the tokenizers library itself: Python may know another version of Unicode.

    A letter is "a", a number "0", a blank a tab, and all else "!"; the characters that expressions name are themselves.

    Args:
        by_digit: numbers are what the library splits off as digits; what its expressions alone call one, is unclear.
    """

    def __init__(self, by_digit: bool):
        self._by_digit = by_digit

    def of(self, text: str) -> str:
        """The kinds of a text's characters, one after the other."""
        return text.translate(self)

    def __missing__(self, point: int) -> str:
        character = chr(point)
        if 0xD800 <= point < 0xE000:  # half a pair is no text, which the library says when it comes to encoding
            kind = "!"
        elif character in _NAMED:
            kind = character
        else:
            kind = _KINDS.normalize_str(character)
            if self._by_digit:
                is_digit = len(_DIGITS.pre_tokenize_str(f"!{character}!")) == 3
                kind = "0" if is_digit else kind.replace("0", _UNCLEAR)
        self[point] = kind
        return kind


_NAMED = "stremvldSTREMVLD\u017f' \r\n"
_UNCLEAR = "?"
_DIGITS = pre_tokenizers.Digits(individual_digits=True)
_KINDS = normalizers.Sequence(
    [
        normalizers.Replace(Regex(pattern), kind)
        for pattern, kind in ((r"[^\s\p{L}\p{N}]", "!"), (r"\s", "\t"), (r"\p{N}", "0"), (r"\p{L}", "a"))
    ]
)
_BY_KIND, _BY_DIGIT = Shapes(by_digit=False), Shapes(by_digit=True)


def inert_parts(text: str, most: int) -> Iterator[str]:
    """A text in parts that are composed one by one as they are together, of `most` characters where that can be."""
    start = 0
    for cut in range(1, len(text)):
        if cut - start >= most and is_inert(text[cut - 1]) and is_inert(text[cut]):
            yield text[start:cut]
            start = cut
    yield text[start:]


@cache
def is_inert(character: str) -> bool:
    """Return whether NFC never changes a character next to others of the kind, in any version of Unicode."""
    return character.isascii() or (
        unicodedata.ucd_3_2_0.category(character)[0] in "LNPSZ"  # assigned of old, and no mark
        and not "\u1100" <= character <= "\u11ff"  # parts of Korean syllables
        and not unicodedata.combining(character)
        and unicodedata.is_normalized("NFC", character)
    )
