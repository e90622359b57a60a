"""Byte-level BPE by the package tokie, for the texts of which its ids are known to be those of `tokenizers`.

It needs a sixth of the time, over 707 MB in which no id differed. It is known where the two differ as well: where
versions of Unicode do (circled letters, Roman numerals), and at runs of spaces of different kinds. The words around
characters that are not `KNOWN`, and tokenizers with other rules than our own, are left to `tokenizers`;
`benchmarks/encoders.py` compares both over whole corpora.
"""

import json
import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer

from lilliput.base.errors import DataError
from lilliput.tokenizer.cuts import Cuts, cuts_of

try:
    import tokie
except ImportError:  # a platform that it has no wheel for
    tokie = None

KNOWN = (
    *((0x0A, 0x0A), (0x20, 0x7E), (0xA1, 0x377), (0x37A, 0x37F), (0x384, 0x38A), (0x38C, 0x38C), (0x38E, 0x3A1)),
    *((0x3A3, 0x52F), (0x5D0, 0x5EA), (0x600, 0x6FF), (0x900, 0x97F), (0x1E00, 0x1F15), (0x1F80, 0x1FB4)),
    *((0x200B, 0x200F), (0x2010, 0x2027), (0x2030, 0x205E), (0x20A0, 0x20BF), (0x2100, 0x215F), (0x2190, 0x23FF)),
    *((0x2500, 0x27FF), (0x3001, 0x3006), (0x3008, 0x3020), (0x3030, 0x3030), (0x3041, 0x30FF), (0x4E00, 0x9FFF)),
    *((0xAC00, 0xD7A3), (0xFF01, 0xFF5E), (0x1F300, 0x1FAFF)),
)
"""Characters, from and to, whose texts both encode alike: compared in some hundred thousand texts of a test, in words,
between digits, and in runs."""
_UNKNOWN = re.compile(f"[^{''.join(f'{re.escape(chr(first))}-{re.escape(chr(last))}' for first, last in KNOWN)}]")

_KNOWN_ASCII = bytes(code for first, last in KNOWN for code in range(first, last + 1) if code < 0x80)
_FEW = 48
"""Unknown characters of a text that is cut around them; with more, all of it is left to `tokenizers`."""

COMPARED = 128
"""One batch in so many is encoded by both, and compared."""

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}


class FastBPE:
    """Encodes texts to the ids that a tokenizer gives; see `of`."""

    def __init__(self, tokenizer: Tokenizer, fast: Any, cuts: Cuts, code: str):
        self._tokenizer, self._fast, self._cuts, self._code = tokenizer, fast, cuts, code
        self._batches = 0

    @classmethod
    def of(cls, tokenizer: Tokenizer, code: str = "I") -> "FastBPE | None":
        """Return the fast form of a tokenizer; None where it has none, or other rules than our own.

        Args:
            tokenizer: is not to change any more.
            code: type of the arrays of ids, as `array` names it.
        """
        if tokie is None or not tokenizer.encode_special_tokens:
            return None  # before the rules are read, which takes a tenth of a second for a large vocabulary
        rules, cuts = json.loads(tokenizer.to_str()), cuts_of(tokenizer)
        if cuts is None or not _is_plain(rules):
            return None
        with TemporaryDirectory() as folder:  # special tokens that are read literally are none for it
            file = Path(folder) / "tokenizer.json"
            file.write_text(json.dumps(rules | {"added_tokens": []}), encoding="utf-8")
            return cls(tokenizer, tokie.Tokenizer.from_json(str(file)), cuts, code)

    def encode_batch(self, texts: Sequence[str]) -> "list[array[int]]":
        """Return the ids of each text, without special tokens.

        Raises:
            DataError: the two disagree.
        """
        parts = [self._parts(text) for text in texts]
        slow = iter(self._slow_ids([part for some in parts for part, is_known in some if not is_known]))
        found = [
            self._joined([self._fast_ids(part) if is_known else next(slow) for part, is_known in some])
            for some in parts
        ]
        if self._batches % COMPARED == 0:
            self._compare(texts, found)
        self._batches += 1
        return found

    def _parts(self, text: str) -> list[tuple[str, bool]]:
        """Cut a text into parts, each with whether all its characters are known."""
        left = text.encode("utf-8", "surrogatepass").translate(None, _KNOWN_ASCII)  # five times as fast as a search
        count = len(_UNKNOWN.findall(left.decode("utf-8", "surrogatepass"))) if left else 0
        if not count:
            return [(text, True)]
        return list(self._cut(text)) if count <= _FEW else [(text, False)]

    def _cut(self, text: str) -> Iterator[tuple[str, bool]]:
        start = 0
        while unknown := _UNKNOWN.search(text, start):
            first, after = self._cuts.around(text, unknown.start(), start)
            if first > start:
                yield text[start:first], True
            yield text[first:after], False
            start = after
        if start < len(text):
            yield text[start:], True

    def _joined(self, parts: "list[array[int]]") -> "array[int]":
        ids = parts[0]
        for part in parts[1:]:
            ids.extend(part)
        return ids

    def _fast_ids(self, text: str) -> "array[int]":
        # For several texts at a time it starts threads, whose memory of words is empty: half as long again for ours.
        ids, _ = self._fast.encode_batch_flat([text], add_special_tokens=False)
        return array(self._code, ids.astype(self._code).tobytes())

    def _slow_ids(self, texts: Sequence[str]) -> "list[array[int]]":
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False) if texts else []
        return [array(self._code, encoding.ids) for encoding in encodings]

    def _compare(self, texts: Sequence[str], found: "Sequence[array[int]]") -> None:
        for text, ids, expected in zip(texts, found, self._slow_ids(texts), strict=True):
            if ids != expected:
                at = next((at for at, (one, other) in enumerate(zip(ids, expected, strict=False)) if one != other), 0)
                ours, theirs = (some[at : at + 4].tolist() for some in (ids, expected))
                raise DataError(
                    f"tokie gives {ours} and tokenizers {theirs} from token {at:,} on",
                    where=f"a text that begins with {text[:60]!r}",
                    hint="uninstall tokie, and please report the text: without it everything is encoded by tokenizers",
                )


def _is_plain(rules: dict[str, Any]) -> bool:
    """Return whether a tokenizer is BPE of bytes with our own rules."""
    model, before = rules["model"], rules["pre_tokenizer"]
    settings = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    return (
        model["type"] == "BPE"
        and not any(model.get(name) for name in (*settings, "ignore_merges"))
        and rules["normalizer"] is None
        and before in (_BYTE_LEVEL, {"type": "Sequence", "pretokenizers": [_DIGITS, _BYTE_LEVEL]})
        and all(token["special"] for token in rules["added_tokens"])
    )
