"""The ids of one long word, merged window by window: BPE takes some 100 bytes of memory for each byte of a word.

BPE merges the pair of the lowest rank, the leftmost of those first, until none is left. Two facts follow.

1. Tokens of a word that stand side by side are what BPE makes of their text alone: no merge went across their ends, and
   those between were chosen by rank and place, whatever else there was.
2. Where `... x` are the tokens of one text, `y ...` those of another, and `x y` those of the two joined, `... x y ...`
   are the tokens of both texts joined. For else some merge would be the first across the border of `x` and `y`. Until
   then all went as in each text alone, so as in `x` and `y` alone, where this merge would have come next as well.

So what stands before a token `y` of a window is settled if the next window begins where `y` does, and with `y` again:
by the first, the token `x` before it and `y` are what is made of their text; the second does the rest. Should a window
that has to grow begin with another token after all, it takes back what was settled before it.
"""

import json
from array import array
from collections.abc import Iterator, Sequence

from tokenizers import Tokenizer

_MARGIN = 64
"""Fraction of a window left out at its end when the next begins, 1/64: what comes after may change its tokens."""
_SHOWN = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_HIDDEN = [byte for byte in range(0x100) if byte not in _SHOWN]
_LETTERS = {byte: 0x100 + number for number, byte in enumerate(_HIDDEN)}
"""Bytes as letters, as GPT-2 wrote them: those that nobody sees are others."""
_BYTES = {chr(letter): byte for byte, letter in _LETTERS.items()} | {chr(byte): byte for byte in _SHOWN}


def byte_of(letter: str) -> int:
    """Return the byte that a letter of a token stands for."""
    return _BYTES[letter]


class Merger:
    """Makes tokens of long words as the model of a tokenizer does.

    Args:
        tokenizer: with BPE over bytes that leaves nothing to chance; see `lilliput.tokenizer.cuts`.
        window: characters of a word that are added at a time to what is not settled.
    """

    def __init__(self, tokenizer: Tokenizer, window: int):
        self._window = window
        model = json.loads(tokenizer.model.__getstate__())
        # Where a word that is a token needs no merges, a window that is one would need none either.
        plain = {"version": "1.0", "added_tokens": [], "model": model | {"ignore_merges": False}}
        self._tokenizer = Tokenizer.from_str(json.dumps(plain))
        self._tokens = {identity: token for token, identity in model["vocab"].items()}
        self.longest = max(map(len, model["vocab"]))
        """Bytes of the longest token."""

    def add(self, ids: "array[int]", word: str) -> None:
        """Append the ids of a word."""
        begins: list[int] = []  # where the ids of each window begin that is settled
        held, found = "", []
        for offset in range(0, len(word), self._window):
            added = word[offset : offset + self._window].encode().decode("latin-1").translate(_LETTERS)
            for count, start in self._candidates(found, len(held)):
                merged = self._merged(held[start:] + added)
                if merged[0] == found[count]:
                    begins.append(len(ids))
                    ids.extend(found[:count])
                    held, found = held[start:] + added, merged
                    break
            else:
                first, held = found[:1], held + added
                found = self._merged(held)
                while begins and found[:1] != first:
                    before = ids[begins.pop() :]
                    del ids[len(ids) - len(before) :]
                    first, held = before[:1].tolist(), "".join(self._tokens[identity] for identity in before) + held
                    found = self._merged(held)
        ids.extend(found)

    def _merged(self, window: str) -> list[int]:
        (encoding,) = self._tokenizer.encode_batch_fast([window], add_special_tokens=False)
        return encoding.ids

    def _candidates(self, found: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
        """Tokens that the next window may begin with, and where each does: ever farther from the end."""
        start, margin = size, max(1, self._window // _MARGIN)
        for count in range(len(found) - 1, 0, -1):
            start -= len(self._tokens[found[count]])
            if start <= size - margin:
                yield count, start
                margin *= 2
