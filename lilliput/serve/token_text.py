"""The text and the bytes of single tokens, for lists of log-probabilities."""

import json
from functools import lru_cache

from tokenizers import Tokenizer

Named = tuple[str, list[int]]
"""Text of a token, with U+FFFD for parts of characters, and its bytes."""


class TokenText:
    """Names the tokens of a tokenizer.

    Args:
        tokenizer: whose tokens they are.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        decoder = json.loads(tokenizer.to_str()).get("decoder") or {}
        self._is_byte_level = decoder.get("type") == "ByteLevel"
        self._added = {*tokenizer.get_added_tokens_decoder()}
        self.named = lru_cache(maxsize=100_000)(self._named)
        """Return the text and the bytes of a token."""

    def _named(self, token: int) -> Named:
        spelled = self._tokenizer.id_to_token(token)
        if spelled is None:  # the vocabulary of the model is larger than that of the tokenizer
            return "", []
        if token not in self._added and self._is_byte_level:
            spelling = bytes(_BYTES[letter] for letter in spelled)
        else:
            spelling = (spelled if token in self._added else self._tokenizer.decode([token])).encode()
        return spelling.decode(errors="replace"), [*spelling]


def _letters() -> dict[str, int]:
    """Return the byte that each letter of byte-level tokens stands for: itself where it can be seen."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + place): byte for place, byte in enumerate(unseen)}


_BYTES = _letters()
